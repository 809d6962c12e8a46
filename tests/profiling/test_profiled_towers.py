"""Systems with their own towers, scored by embeddings, conditioned or pair by pair, are profiled like any other."""

import pytest

from cmer.config.base import validate
from cmer.profiling.bench import Bench
from cmer.profiling.spec import ProfileSpec

CNN = {"image_size": 64, "image_model": "test_resnet", "image_weights": None, "word_width": 12, "gru_width": 16}
SMALL = {
    "amfmn": CNN,
    "mcrn": CNN | {"unused_parts": False},
    "hvsa": CNN,
    "swan": CNN | {"train_cnn": True},
    "pir": {
        **{"image_size": 32, "width": 8, "depths": [1, 1], "heads": [2, 2], "window": 2, "scene_model": "test_resnet"},
        **{"image_weights": None, "scene_weights": None, "text_model": "tiny", "embedding": 16, "kept_tokens": 9},
    },
    "ieft": {"image_size": 32, "patch_size": 8, "width": 32, "heads": 4, "blocks": 5, "weights": None},
}


@pytest.mark.parametrize("method", SMALL)
def test_every_measure_of_a_row(method) -> None:
    row = {"run": method, "method": method, "options": SMALL[method]}
    profile = {"batches": [2, 4], "threads": 1, "warmup": 1}
    spec = validate(ProfileSpec, {"name": "own_towers", "rows": [row], "profile": profile}, "spec")
    bench = Bench(spec, spec.rows[0])
    small, large = (bench.count("today", size, timed=True) for size in (2, 4))
    assert small["parameters"] == large["parameters"] > 1000
    for what in ("saved_bytes", "macs_forward", "macs_backward"):
        assert large[what] > small[what] > 0, what
    assert small["peak_bytes"] > 0
    if method == "ieft":  # four and sixteen forward passes
        assert large["macs_backward"] > 3.5 * small["macs_backward"]
    assert len(bench.time("today", 2, 2)) == 2
