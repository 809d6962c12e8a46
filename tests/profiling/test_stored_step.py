"""The profile of a step that reads stored features."""

import numpy as np
import pytest
import torch
from profiling_cases import SMALL, TINY, spec

from cmer.profiling.bench import Bench
from cmer.profiling.measure import flop_counter, macs, saved_bytes
from cmer.profiling.step import Step, plain_attention

IMAGE = 2 * 17 * 64
"""Elements of both image blocks of the tiny backbone."""


def bench(text="lora", stored=True, **features):
    asked = spec("cmer", backbone=TINY | {"features": features})
    options = asked.rows[0].options.model_validate(SMALL | {"text": text})
    row = asked.rows[0].model_copy(update={"options": options, "stored": stored})
    return Bench(asked, row)


def step(text, stored, size=4, micro_batch=None):
    made = bench(text, stored)
    row = made.row.model_copy(update={"micro_batch": micro_batch})
    return Step(made.model, made.spec, row, "today", size)


@pytest.mark.parametrize("text", ["lora", "side_branch"])
def test_frozen_towers_do_not_run_and_the_rest_is_the_same(text) -> None:
    online, stored = step(text, False), step(text, True)
    backbone = online.model.backbone
    pixels, tokens = online.pixels, online.tokens
    with flop_counter() as counter, plain_attention(), torch.no_grad():
        backbone.encode_images(pixels)
        if text == "side_branch":
            backbone.encode_texts(tokens)
    (before, backward), found = macs(online), macs(stored)
    assert found == (before - counter.get_total_flops() // 2, backward)
    mask = 4 * 32 if text == "side_branch" else 0  # it comes with the stored features of texts
    assert saved_bytes(stored.run, stored.kept(), stored) == saved_bytes(online.run, online.kept(), online) + mask


def test_another_part_keeps_no_features_because_they_are_read_again() -> None:
    sizes = [saved_bytes(s.run, s.kept(), s) for s in (step("side_branch", True, n, 1) for n in (2, 4))]
    assert 0 <= (sizes[1] - sizes[0]) / 2 < 30 * 32 * 4 < IMAGE * 4, "some vectors of the shared space for the losses"


@pytest.mark.parametrize(("dtype", "block"), [("bfloat16", 2 * IMAGE), ("int8", IMAGE + 2 * 17 * 4)])
def test_bytes_of_a_pair_are_those_of_the_files(dtype, block) -> None:
    counted = bench(dtype=dtype).count("today", 2, True)
    assert counted["read_bytes_per_pair"] == 32 * 4 + block, "texts are tokenised, not read"
    assert counted["read_pairs_per_second"] > 0
    texts = bench("side_branch", dtype="float32").count("today", 2, False)
    starts = 8 * 3 / 2
    assert texts["read_bytes_per_pair"] == 32 * 4 + 4 * IMAGE + 32 * 4 + 4 * 2 * 32 * 48 + starts
    assert texts["read_pairs_per_second"] is None, "the size is not timed"


def test_every_step_reads_other_images() -> None:
    store, batch = step("lora", True).store, np.arange(4)
    first = store.images(batch).pooled
    store.turn()
    assert not torch.isin(store.images(batch).pooled, first).any()
    for _ in range(store.images_held // 4 - 1):
        store.turn()
    torch.testing.assert_close(store.images(batch).pooled, first, rtol=0, atol=0)


def test_a_method_that_reads_pixels_is_refused() -> None:
    asked = spec("clip_lora")
    with pytest.raises(ValueError, match="clip_lora reads pixels, and cannot be profiled from stored features"):
        type(asked.rows[0]).model_validate(asked.rows[0].model_dump() | {"stored": True})


def test_an_online_row_reads_nothing() -> None:
    counted = bench(stored=False).count("today", 2, True)
    assert counted["read_bytes_per_pair"] is counted["read_pairs_per_second"] is None
