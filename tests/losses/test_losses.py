import math

import pytest
import torch
import torch.nn.functional as F
from open_clip import ClipLoss

from cmer.losses.batch.contrastive import contrastive
from cmer.losses.hinge import queue_hinge
from cmer.losses.memory import PairIds
from cmer.losses.queue import NegativeQueue


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def meta(images: list[int], labels: list[int]) -> PairIds:
    return PairIds(torch.tensor(images), torch.tensor(images), torch.tensor(labels))


def test_contrastive_equals_open_clips_loss() -> None:
    images, texts, scale = unit(7, 5), unit(7, 5, seed=1), torch.tensor(14.3)
    assert contrastive(images, texts, scale).item() == pytest.approx(ClipLoss()(images, texts, scale).item(), abs=1e-6)


def test_soft_positives_without_duplicates_are_the_plain_loss() -> None:
    images, texts, scale = unit(6, 4), unit(6, 4, seed=1), torch.tensor(5.0)
    plain = contrastive(images, texts, scale)
    assert contrastive(images, texts, scale, torch.eye(6, dtype=torch.bool)).item() == pytest.approx(plain.item())


def test_soft_positives_share_the_target_equally() -> None:
    images, texts, scale = unit(3, 4), unit(3, 4, seed=1), torch.tensor(5.0)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    rows = F.log_softmax(scale * images @ texts.T, dim=1)
    columns = F.log_softmax(scale * texts @ images.T, dim=1)
    by_hand = sum(-(m[0, 0] + m[0, 1]) / 2 - (m[1, 0] + m[1, 1]) / 2 - m[2, 2] for m in (rows, columns)) / 6
    assert contrastive(images, texts, scale, same).item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_queue_is_first_in_first_out() -> None:
    queue, size = NegativeQueue(12, 2), 4
    for batch in range(9):  # three times round
        rows = torch.full((size, 2), float(batch))
        queue.enqueue(rows, -rows, meta([batch * size + i for i in range(size)], [batch] * size))
    assert sorted(queue.image_ids.tolist()) == list(range(24, 36))
    assert set(queue.labels.tolist()) == {6, 7, 8}
    assert torch.equal(queue.images[:, 0].long(), queue.labels)
    assert torch.equal(queue.texts, -queue.images)


def test_queue_takes_a_last_small_batch_and_detaches() -> None:
    queue = NegativeQueue(6, 2)
    for ids in ([0, 1, 2, 3], [4], [5, 6, 7, 8]):
        rows = torch.ones(len(ids), 2, requires_grad=True)
        queue.enqueue(rows, rows, meta(ids, [0] * len(ids)))
    assert sorted(queue.image_ids.tolist()) == [3, 4, 5, 6, 7, 8]
    assert not queue.images.requires_grad


def test_a_batch_larger_than_the_queue_leaves_its_last_pairs() -> None:
    queue = NegativeQueue(3, 2)
    queue.enqueue(torch.ones(5, 2), torch.ones(5, 2), meta([0, 1, 2, 3, 4], [0] * 5))
    assert sorted(queue.image_ids.tolist()) == [2, 3, 4]


def test_negatives_have_another_image_and_another_label() -> None:
    queue = NegativeQueue(8, 2)
    queue.enqueue(torch.ones(5, 2), torch.ones(5, 2), meta([0, 1, 2, 3, 4], [0, 1, 1, -1, -1]))
    allowed = queue.negatives(meta([0, 9, 3], [0, 1, -1]))
    assert allowed.int().tolist() == [
        [0, 1, 1, 1, 1, 0, 0, 0],  # not itself, nor empty places
        [1, 0, 0, 1, 1, 0, 0, 0],  # not its label; unlabelled entries count
        [1, 1, 1, 0, 1, 0, 0, 0],  # unlabelled: told apart by image alone
    ]


@pytest.mark.parametrize("equal_texts_match", [False, True])
def test_equal_captions_are_no_negatives_if_they_match_in_the_batch(equal_texts_match: bool) -> None:
    queue = NegativeQueue(3, 2, equal_texts_match)
    queue.enqueue(unit(3, 2), unit(3, 2), PairIds(*map(torch.tensor, ([0, 1, 2], [5, 6, 7], [0, 0, 0]))))
    batch = PairIds(*map(torch.tensor, ([8, 9], [6, 9], [1, 1])))
    assert queue.negatives(batch).int().tolist() == [[1, int(not equal_texts_match), 1], [1, 1, 1]]


def test_an_empty_queue_costs_nothing() -> None:
    batch = meta([0, 1], [0, 1])
    assert queue_hinge(unit(2, 4), unit(2, 4), batch, NegativeQueue(4, 4), 0.2, 0.5).item() == 0.0


def test_hinge_equals_the_sum_written_out() -> None:
    images, texts = unit(3, 4), unit(3, 4, seed=1)
    past_images, past_texts = unit(4, 4, seed=2), unit(4, 4, seed=3)
    queue = NegativeQueue(8, 4)
    queue.enqueue(past_images, past_texts, meta([10, 11, 12, 1], [0, 1, 2, 2]))
    total = 0.0
    for i, label in enumerate([0, 1, 2]):
        for j, (other, image) in enumerate(zip([0, 1, 2, 2], [10, 11, 12, 1], strict=True)):
            if other != label and image != i:
                positive = images[i] @ texts[i]
                for negative in (texts[i] @ past_images[j], images[i] @ past_texts[j]):
                    hinge = max(0.0, 0.2 - positive.item() + negative.item())
                    total += hinge * math.exp(-0.5 * hinge)
    found = queue_hinge(images, texts, meta([0, 1, 2], [0, 1, 2]), queue, 0.2, 0.5)
    assert found.item() == pytest.approx(total / (3 * 4), abs=1e-6)


def test_the_difficulty_weight_is_part_of_the_gradient() -> None:
    text, past = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    queue = NegativeQueue(1, 2)
    queue.enqueue(past, torch.tensor([[-1.0, 0.0]]), meta([5], [1]))
    image = torch.tensor([[0.3, 0.2]], requires_grad=True)
    queue_hinge(image, text, meta([0], [0]), queue, 0.2, 0.5).backward()
    hinge = 0.2 - 0.3 + 1.0  # the other direction's hinge is zero: 0.2 - 0.3 - 0.3 < 0
    assert image.grad is not None
    assert image.grad[0, 0].item() == pytest.approx(-(1 - 0.5 * hinge) * math.exp(-0.5 * hinge), abs=1e-6)
