"""Which loss a method computes against its queue or bank, and how its settings are named."""

import pytest
import torch
import torch.nn.functional as F

from cmer.backbones.base import BlockSpec, Shapes
from cmer.config.backbones import FeatureOptions
from cmer.losses.bank import Bank
from cmer.losses.hinge import queue_hinge
from cmer.losses.infonce import contrastive_with, memory_infonce
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.registry import METHOD_OPTIONS
from cmer.reporting.naming import differences

BLOCK = BlockSpec(grid=0, width=6, has_cls=False)
SHAPES = Shapes(image_dim=7, text_dim=6, aligned=False, logit_scale=20.0, blocks=[BLOCK], text_blocks=[BLOCK])
CONTEXT = Context(SHAPES, FeatureOptions(blocks=[], text_blocks=[0]), None, [], 3)
TEXT_ONLY = {"text": "side_branch", "focus_adapter": False, "scene_prompt": False, "hidden": 8, "heads": 2}
PAST = PairIds(torch.arange(3) + 5, torch.tensor([1, 7, 8]), torch.tensor([3, 1, 5]))
BATCH = PairIds(torch.arange(3), torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
IMAGES, TEXTS, OLD = F.normalize(torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(0)), dim=-1)


def method_of(name, **options):
    return build(name, METHOD_OPTIONS.get(name)(projection={"dim": 5}, **options), CONTEXT)


def losses(method, memory):
    memory.add(OLD, OLD.flip(0), PAST)
    return method.losses(IMAGES, TEXTS, BATCH, memory, StepInfo(0, 1))


@pytest.mark.parametrize("kind", ["mean", "mean_violating", "sum_per_pair", "infonce"])
def test_the_queue_has_the_loss_that_is_chosen(kind) -> None:
    chosen = {"queue_batches": 2, "queue_loss": kind, "queue_weight": 0.3, "margin": 0.1, "difficulty": 0.7}
    method = method_of("cmer", **TEXT_ONLY, **chosen)
    memory = method.memory(3)
    found = losses(method, memory)
    if kind == "infonce":
        expected = memory_infonce(IMAGES, TEXTS, method.heads.scale(), memory, BATCH)
    else:
        expected = queue_hinge(IMAGES, TEXTS, BATCH, memory, 0.1, 0.7, kind)
    assert set(found) == {"batch", "queue"} and found["queue"] > 0
    assert torch.equal(found["queue"], 0.3 * expected)


@pytest.mark.parametrize("positives", [False, True])
@pytest.mark.parametrize(("name", "options"), [("linear_probe", {}), ("cmer", TEXT_ONLY | {"queue_batches": 0})])
def test_a_bank_takes_the_place_of_the_queue(name, options, positives) -> None:
    assert method_of(name, **options).bank(9) is None
    method = method_of(name, bank_refresh=4, soft_multi_positive=positives, **options)
    bank = method.bank(9)
    assert isinstance(bank, Bank) and bank.images.shape == bank.texts.shape == (9, 5)
    assert (bank.refresh, bank.equal_texts_match) == (4, positives)
    matching = BATCH.positives() if positives else None
    found = losses(method, bank)
    assert set(found) == {"batch"}
    assert torch.equal(found["batch"], contrastive_with(IMAGES, TEXTS, method.heads.scale(), matching, bank, BATCH))


def test_queue_and_bank_are_named_where_they_have_an_effect() -> None:
    options = METHOD_OPTIONS.get("cmer")
    queued = TEXT_ONLY | {"hidden": 192, "heads": 6, "queue_batches": 2, "margin": 0.5}
    assert "queue loss infonce" in differences(options(queue_loss="infonce", **queued))
    assert "margin 0.5" in differences(options(**queued))
    assert "margin 0.5" not in differences(options(queue_loss="infonce", **queued))
    unqueued = queued | {"queue_batches": 0}
    assert "queue loss infonce" not in differences(options(queue_loss="infonce", **unqueued))
    assert "bank refresh 5" in differences(options(bank_refresh=5, **unqueued))
