"""Block outputs as 8-bit integers with a scale per token."""

import json

import feature_cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmer.backbones.tiny.options import TinyOptions
from cmer.config.backbones import FeatureOptions
from cmer.features import extract as extraction
from cmer.features.quantise import decoded, encoded, rounded, scales_of
from cmer.features.sink import Sink
from cmer.features.store import Store


def options(dtype):
    return TinyOptions(kind="tiny", printed="tiny", features=FeatureOptions(views=4, dtype=dtype))


def run(prepared, cache, dtype="int8"):
    return feature_cases.run(prepared, cache, options(dtype))


@pytest.fixture(scope="module")
def stored(prepared, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return Store(run(prepared, cache), cache)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 1e6), st.integers(0, 100))
def test_every_element_is_within_half_a_step(size, seed) -> None:
    rows = size * torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows[0, 0] = 0
    arrays = encoded("x", rows.float(), "int8")
    assert arrays["x"].dtype == torch.int8 and arrays["x"].abs().max() == 127
    largest = rows.abs().amax(dim=-1, keepdim=True)
    error = (decoded(arrays["x"], arrays["scales_x"]).double() - rows).abs()
    assert (error <= largest / 254 * (1 + 1e-5)).all()
    assert error.max() > largest.max() / 1000  # nothing finer than 8 bits was kept


def test_float_types_are_only_rounded() -> None:
    rows = torch.randn(4, 8)
    assert torch.equal(rounded(rows, "float32"), rows)
    assert torch.equal(rounded(rows, "bfloat16"), rows.to(torch.bfloat16))
    assert encoded("x", rows, "bfloat16").keys() == {"x"}


def test_the_store_reads_the_rounded_outputs_of_the_towers(prepared, stored, tmp_path) -> None:
    """Of the same extraction in float32, element by element; pooled embeddings are not rounded."""
    exact = Store(run(prepared, tmp_path, "float32"), tmp_path)
    ids, views = np.array([3, 0, 17]), np.array([0, 3, 1])
    here, there = stored.images(ids, views, [0, 1]), exact.images(ids, views, [0, 1])
    assert torch.equal(here.pooled, there.pooled)
    for block in (0, 1):
        assert torch.equal(here.blocks[block], rounded(there.blocks[block], "int8"))
    texts = [prepared.pairs.texts[0], prepared.pairs.prompts[7]]
    here, there = stored.texts(texts, [1]), exact.texts(texts, [1])
    assert torch.equal(here.pooled, there.pooled)
    assert torch.equal(here.blocks[1], rounded(there.blocks[1], "int8"))


def test_a_token_takes_a_byte_per_channel_and_four(stored) -> None:
    arrays = stored.manifest.arrays
    block, scales = arrays["image_block_1"], arrays[scales_of("image_block_1")]
    assert block.bytes == np.prod(block.shape) and scales.shape == block.shape[:-1]
    assert scales.bytes == 4 * block.bytes // block.shape[-1]
    assert stored.manifest.blocks() == {"blocks": [0, 1], "text_blocks": [0, 1]}


def test_an_interrupted_extraction_ends_with_the_same_bytes(prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(extraction, "IMAGES_A_BATCH", 8)
    whole = run(prepared, tmp_path / "whole")
    append, calls = Sink.append, iter(range(1000))

    def dies(self, name, rows):
        append(self, name, rows)
        if next(calls) > 6 and name == "scales_image_block_0":  # block 1 of this batch is not written
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Sink, "append", dies)
        run(prepared, tmp_path / "killed")
    assert 0 < json.loads(next((tmp_path / "killed").glob("*/progress.json")).read_text())["images"] < 36
    assert run(prepared, tmp_path / "killed").arrays == whole.arrays


@pytest.mark.parametrize("name", ["scales_image_block_0", "scales_text_block_1"])
def test_damaged_scales_are_extracted_anew(prepared, stored, tmp_path, name) -> None:
    whole = run(prepared, tmp_path)
    file = tmp_path / whole.digest / f"{name}.bin"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert [path.name for path in whole.damaged(tmp_path)] == [file.name]
    assert run(prepared, tmp_path).arrays == stored.manifest.arrays
    assert not whole.damaged(tmp_path)
