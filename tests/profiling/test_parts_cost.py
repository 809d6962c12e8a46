"""What encoding in parts keeps and computes."""

import pytest
import torch
from profiling_cases import model_of, spec, step_of

from cmer.profiling.measure import Live, flop_counter, macs, saved_bytes
from cmer.profiling.step import Step, plain_attention

FEATURES = (2 * 17 * 64 + 32) * 4
"""Bytes of the tiny image tower's two block outputs and embedding per image."""


def in_parts(size, micro_batch):
    asked = spec("cmer")
    row = asked.rows[0].model_copy(update={"micro_batch": micro_batch})
    return Step(model_of("cmer"), asked, row, "today", size)


def kept(step):
    return saved_bytes(step.run, step.kept(), step)


def test_another_part_keeps_its_frozen_features_and_its_items() -> None:
    small, large = kept(in_parts(2, 1)), kept(in_parts(4, 1))
    assert 0 < (large - small) / 2 - FEATURES < 20 * 32 * 4  # some vectors of the shared space for the losses
    assert large < kept(step_of("cmer", size=4)) / 2
    assert large < kept(in_parts(4, 2)) < kept(in_parts(4, 4)) == kept(step_of("cmer", size=4))


def test_features_count_as_long_as_they_are_kept() -> None:
    step = step_of("cmer", size=4)
    assert kept(step) == saved_bytes(step.run, step.kept()), "autograd keeps the same storages"
    step = in_parts(4, 1)
    assert kept(step) - saved_bytes(step.run, step.kept()) == pytest.approx(3 * FEATURES, abs=4 * 32 * 4 * 4)


def test_bytes_are_those_held_at_one_time() -> None:
    whole, other = torch.ones(6), torch.ones(5)
    live = Live([other])
    first, second = live.hold(whole), live.hold(whole[:2])
    assert live.bytes == live.most == 6 * 4, "one storage"
    del first
    assert live.bytes == 6 * 4
    del second
    assert (live.bytes, live.most) == (0, 6 * 4)
    held = [live.hold(torch.ones(4)), live.hold(other)]
    assert (live.bytes, live.most) == (4 * 4, 6 * 4)
    held.append(live.hold(torch.ones(3)))
    assert (live.bytes, live.most) == (7 * 4, 7 * 4)


def test_what_back_propagates_is_encoded_again_except_the_last_part_and_frozen_towers_are_not() -> None:
    plain, parts = macs(step_of("cmer", size=4)), macs(in_parts(4, 1))
    step = in_parts(4, 1)
    method = step.model.method
    ids, texts = step.batch.images[:1], [text for text, row in step.rows.items() if row == 0]
    images, tokens = step._images(ids, ids, True), step._texts(texts)
    with flop_counter() as counter, plain_attention():
        method.image_outputs(images)
        method.text_outputs(tokens)
    assert parts[0] == plain[0]
    assert parts[1] - plain[1] == 3 * counter.get_total_flops() // 2


def test_a_step_that_does_not_fit_is_not_measured_in_smaller_parts(monkeypatch) -> None:
    step = step_of("cmer")
    monkeypatch.setattr(step.model.method, "encode_images", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        step.run()
    assert step.trainer.state.micro_batch is None
