"""The step that is measured, and its timing."""

import pytest
import torch
from profiling_cases import TINY, model_of, spec, step_of

from cmer.backbones.base import Tokens
from cmer.profiling.bench import Bench
from cmer.profiling.measure import seconds
from cmer.profiling.spec import ProfileRow
from cmer.profiling.step import Model, Step


def test_the_step_trains_and_fills_the_queue() -> None:
    step = step_of("cmer")
    state = step.trainer.state
    before = {name: tensor.detach().clone() for name, tensor in state.trained.items()}
    for _ in range(2):
        step.run()
    assert int(state.memory.filled) == 4
    assert state.optimizer.state
    moved = max((before[name] - tensor).abs().max().item() for name, tensor in state.trained.items())
    assert 0 < moved < 1e-5, "hundreds of steps on one batch stay finite"


def test_the_step_of_an_ensemble_is_that_of_a_member() -> None:
    asked = spec("linear_probe", batches=[2, 4])
    (single,) = asked.rows
    ensemble = single.model_copy(update={"options": single.options.model_copy(update={"members": 3})})
    rows = []
    for row in (single, ensemble):
        torch.manual_seed(0)
        rows.append(Bench(asked, row).count("today", 4, timed=False))
    one, three = rows
    assert three.pop("parameters") == 3 * one.pop("parameters")
    assert three == one


def test_batches_of_both_sizes_are_alike() -> None:
    small, large = step_of("cmer", size=2), step_of("cmer", size=4)
    assert torch.equal(small.tokens.ids, large.tokens.ids[:2])
    assert small.batch.prompted.mean() == large.batch.prompted.mean() == 0.5
    assert len({tuple(row) for row in large.tokens.ids.tolist()}) == 4


@pytest.mark.parametrize("backbone", [TINY, {"kind": "lite", "printed": "lite", "size": 64}])
@pytest.mark.parametrize(("setting", "length"), [("paper_like", 77), ("today", 32)])
def test_texts_have_the_settings_length_in_batches_of_any_size(backbone, setting, length) -> None:
    for batches in ([2, 4], [3, 600]):
        asked = spec("linear_probe", backbone=backbone, batches=batches)
        for size in batches:
            step = Step(Model.build(asked, asked.rows[0]), asked, asked.rows[0], setting, size)
            assert step.tokens.ids.shape == step.tokens.mask.shape == (size, length)
            assert step.tokens.mask.all()


def test_towers_with_a_shorter_or_padded_context_keep_it(monkeypatch) -> None:
    model, asked = model_of("linear_probe"), spec("linear_probe")
    for context in (20, 64):
        short = torch.ones(2, context, dtype=torch.bool)
        monkeypatch.setattr(Model, "tokenize", lambda _self, _texts, mask=short: Tokens(mask.long(), mask))
        assert Step(model, asked, asked.rows[0], "today", 2).tokens.ids.shape == (2, context)


def test_warm_up_steps_precede_the_timed_ones_of_every_round(monkeypatch) -> None:
    ran, clock = [], iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) + 10 * len(ran))
    assert seconds(lambda: ran.append(0), 4, 3) == [11] * 4
    assert len(ran) == 7
    asked = spec("linear_probe", warmup=2)
    bench = Bench(asked, asked.rows[0])
    monkeypatch.setattr(Step, "run", lambda _self: ran.append(0))
    for total in (7 + 5, 7 + 10):
        assert len(bench.time("today", 2, 3)) == 3
        assert len(ran) == total


def test_counting_only_measures_no_peak() -> None:
    bench = Bench(spec("clip_adapter"), spec("clip_adapter").rows[0])
    counted = bench.count("today", 2, False)
    assert counted["peak_bytes"] is counted["peak_reserved_bytes"] is None
    assert bench.count("today", 2, True) | {"peak_bytes": None, "peak_reserved_bytes": None} == counted
    assert len(bench.time("today", 2, 3)) == 3


def test_a_pretrained_model_is_profiled_without_its_weights(monkeypatch) -> None:
    given = []
    monkeypatch.setattr("cmer.profiling.step.build_backbone", lambda options: given.append(options) or 1 / 0)
    backbone = {"kind": "open_clip", "model": "ViT-B-32-quickgelu", "pretrained": "openai", "printed": "ViT-B-32"}
    asked = spec("cmer", backbone=backbone)
    with pytest.raises(ZeroDivisionError):
        Model.build(asked, asked.rows[0])
    assert given[0].pretrained is None and given[0].model == "ViT-B-32-quickgelu"


def test_a_method_with_its_own_towers_is_profiled_beside_those_of_a_backbone() -> None:
    asked, own = spec("linear_probe"), {"image_size": 16, "width": 8, "depths": [1, 1], "heads": [2, 2], "window": 2}
    row = ProfileRow.model_validate({"run": "own.cmpagl", "method": "cmpagl", "options": own | {"text_model": "tiny"}})
    model = Model.build(asked, row)
    step = Step(model, asked, row, "today", 2)
    assert model.backbone is None and step.pixels.shape == (2, 3, 16, 16)
    step.run()
    assert step.trainer.state.images_seen == 2
