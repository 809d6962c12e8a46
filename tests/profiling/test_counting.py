"""Multiply-accumulates of a run's parts, against closed forms, the measured step and computed batches."""

import pytest
import torch
from profiling_cases import SMALL, step_of
from test_macs import tower

from cmer.backbones.tiny.options import TinyOptions
from cmer.config.experiment import parse
from cmer.profiling.counting import Counter, Parts
from cmer.profiling.measure import macs
from cmer.registry import METHOD_OPTIONS

IEFT = {"image_size": 32, "patch_size": 8, "width": 32, "heads": 4, "blocks": 5, "weights": None, "false_texts": 2}
CNN = {"image_size": 64, "image_model": "test_resnet", "image_weights": None, "word_width": 12, "gru_width": 16}


def counted(method, options=None, batch_size=256):
    """The parts of a run, on the tiny backbone unless the method has its own towers."""
    given = METHOD_OPTIONS.get(method).model_validate(options or {})
    run = {"method": method, "options": options or {}, "training": {"batch_size": batch_size}}
    towers = {} if given.own_towers else {"backbones": ["tiny"]}
    config = parse(
        {
            "datasets": {"demo": {"source": "demo"}},
            "backbones": {"tiny": {"kind": "tiny", "printed": "tiny"}},
            "runs": {method: run | towers | {"datasets": ["demo"]}},
        }
    )
    return Counter(config).macs(config.expanded[0])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("gpu", [False, True])
def test_a_linear_probe_in_closed_form(gpu, monkeypatch) -> None:
    monkeypatch.setattr(TinyOptions, "gpu", gpu)  # from shapes alone, or computed
    found = counted("linear_probe", batch_size=256)
    assert found.frozen_image == 16 * 64 * (3 * 8 * 8) + tower(17, 64) + 64 * 32
    assert found.frozen_text == tower(32, 48) + 48 * 32
    assert found.image == found.text == 32 * 32
    assert found.score == 32
    assert found.forward == pytest.approx(2 * 32 * 32 + 256 * 32)
    assert found.backward == pytest.approx(2 * 32 * 32 + 2 * 256 * 32)


def test_an_ensemble_costs_its_members() -> None:
    single, ensemble = vars(counted("linear_probe")), vars(counted("linear_probe", {"members": 3}))
    for part, cost in single.items():
        assert ensemble[part] == pytest.approx(cost if part.startswith("frozen") else 3 * cost), part


def test_shapes_alone_give_what_is_computed(monkeypatch) -> None:
    for method, options in (("cmer", SMALL), ("cmer", SMALL | {"text": "side_branch"}), ("clip_lora", {})):
        computed = counted(method, options, batch_size=64)
        with monkeypatch.context() as patch:
            patch.setattr(TinyOptions, "gpu", True)
            assert vars(counted(method, options, batch_size=64)) == pytest.approx(vars(computed)), method


@pytest.mark.parametrize("method", ["cmer", "clip_adapter"])
def test_a_step_costs_what_the_profile_measures(method) -> None:
    found = counted(method, SMALL if method == "cmer" else {}, batch_size=2)
    forward, backward = macs(step_of(method, "today", 2))
    assert found.forward + found.frozen_image + found.frozen_text == pytest.approx(forward / 2)
    assert found.backward == pytest.approx(backward / 2)


@pytest.mark.parametrize(("method", "options", "size"), [("ieft", IEFT, 5), ("amfmn", CNN, 6)])
def test_large_batches_cost_what_small_ones_predict(method, options, size) -> None:
    parts = Parts(method, METHOD_OPTIONS.get(method).model_validate(options), None)
    direct = [total / size for total in parts._step(size)]
    assert parts.training(size) == pytest.approx(direct, rel=0.01), "IEFT scores three texts per image in both"


def test_a_pair_scorer_costs_a_forward_pass_per_pair_and_a_dual_encoder_a_dot_product() -> None:
    pair, dual = counted("ieft", IEFT), counted("hvsa", CNN)
    assert pair.score > 5 * 16 * 12 * 32**2, "five blocks over sixteen patches"
    assert dual.score == 512
    assert dual.frozen_image == dual.frozen_text == 0


def test_what_trains_nothing_costs_its_test_alone() -> None:
    found = counted("zero_shot")
    assert (found.forward, found.backward) == (0, 0)
    assert found.frozen_image > 0
