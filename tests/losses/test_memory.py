"""Positives of a batch, and the tensors that a memory keeps."""

import torch

from cmer.losses.memory import PairIds
from cmer.losses.queue import NegativeQueue


def test_pairs_with_the_same_text_or_image_are_positives() -> None:
    pairs = PairIds(torch.tensor([0, 1, 2, 2]), torch.tensor([5, 6, 5, 7]), torch.tensor([0, 0, 0, 0]))
    assert pairs.positives().int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]]


def test_the_tensors_of_a_queue_are_all_that_its_state_holds() -> None:
    queue = NegativeQueue(4, 3)
    assert len(queue.tensors()) == len(queue.state_dict()) == 7
    assert sorted(tuple(tensor.shape) for tensor in queue.tensors()) == [(), (), (4,), (4,), (4,), (4, 3), (4, 3)]
