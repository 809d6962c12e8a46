"""The frozen towers through OpenVINO give the features that torch gives."""

import sys
from importlib.metadata import version

import pytest
import torch

from cmer.backbones.build import build
from cmer.backbones.lite.options import LiteOptions
from cmer.backbones.tiny.options import TinyOptions
from cmer.data.images import open_images
from cmer.errors import UserError
from cmer.features.extract import extract
from cmer.features.inputs import stored_texts
from cmer.features.store import FeatureSpec, Store
from cmer.features.towers import IMAGES_A_PASS, OpenVino, towers

TINY = TinyOptions(kind="tiny", printed="tiny", threads=1)
CONVERTED = TINY.model_copy(update={"runtime": "openvino"})
LITE = LiteOptions(kind="lite", printed="lite", size=64, threads=1)
TEXTS = ["a red plane", "two white boats lie left of the long pier in the harbour", "many trees"]


@pytest.fixture
def openvino():
    """Skips the test where OpenVINO is not installed; imported as the package does, without telemetry."""
    sys.modules.setdefault("openvino_telemetry", None)
    return pytest.importorskip("openvino", reason="the extra `openvino` is not installed")


def error(found, wanted):
    """Relative error of an output, over all its elements."""
    return float((found.float() - wanted).norm() / wanted.norm())


def errors(found, wanted, keep=...):
    assert sorted(found.blocks) == sorted(wanted.blocks)
    pairs = [(found.blocks[b][keep], wanted.blocks[b][keep]) for b in wanted.blocks]
    return [error(found.pooled, wanted.pooled), *[error(*pair) for pair in pairs]]


@pytest.mark.parametrize("options", [TINY, LITE], ids=["tiny", "lite"])
def test_float32_features_equal_those_of_torch(openvino, options) -> None:
    torch.manual_seed(0)
    torch_towers = build(options)
    converted = towers(build(options), options.model_copy(update={"runtime": "openvino"}))
    size, spec = torch_towers.preprocess.size, torch_towers.shapes
    images, texts = range(len(spec.blocks)), range(len(spec.text_blocks))
    with torch.inference_mode():
        pixels = torch.randn(IMAGES_A_PASS + 3, 3, size, size)  # does not fill its last pass
        wanted = torch_towers.encode_images(pixels, images)
        found = converted.encode_images(pixels, images)
        assert all(x.shape == wanted.blocks[b].shape for b, x in found.blocks.items())
        assert max(errors(found, wanted)) < 1e-5
        pixels, wanted = pixels[:2], torch_towers.encode_images(pixels[:2])
        assert max(errors(converted.encode_images(pixels), wanted)) < 1e-5  # other blocks than before
        for batch in (TEXTS, TEXTS[:1], [*TEXTS, "word " * 60]):  # of other sizes than the first
            tokens = torch_towers.tokenize(batch)
            found, wanted = converted.encode_texts(tokens, texts), torch_towers.encode_texts(tokens, texts)
            assert torch.equal(found.mask, tokens.mask)
            assert max(errors(found, wanted, tokens.mask)) < 1e-5


def test_bfloat16_rounds_as_in_torch(openvino) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16 units: OpenVINO computes in float32")
    half = TINY.model_copy(update={"precision": "bfloat16"})
    pixels = torch.randn(8, 3, 32, 32)
    exact = build(TINY).encode_images(pixels, [0, 1])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rounded = errors(build(half).encode_images(pixels, [0, 1]), exact)
        found = errors(
            towers(build(half), half.model_copy(update={"runtime": "openvino"})).encode_images(pixels, [0, 1]), exact
        )
    assert 1e-4 < max(found) < 2 * max(rounded)


def run(prepared, cache, options):
    spec = FeatureSpec(dataset=prepared.options, backbone=options)
    images = open_images(prepared.options, prepared.folder)
    return extract(spec, prepared.pairs.files, prepared.pairs.sha256, images, prepared.texts, cache)


def count_texts(monkeypatch):
    """A list that holds the number of texts of every call of the text tower."""
    counts, encode = [], OpenVino.encode_texts
    monkeypatch.setattr(OpenVino, "encode_texts", lambda *a: counts.append(len(a[1].ids)) or encode(*a))
    return counts


def test_an_extraction_through_openvino(openvino, prepared, tmp_path, monkeypatch) -> None:
    by_torch, encoded = run(prepared, tmp_path, TINY), count_texts(monkeypatch)
    manifest = run(prepared, tmp_path, CONVERTED)
    assert sum(encoded) == len(set(prepared.texts)) < len(prepared.texts)  # each once
    assert manifest.digest != by_torch.digest
    assert manifest.record["versions"]["openvino"] == version("openvino")
    assert "openvino" not in by_torch.record["versions"]
    store, wanted = Store(manifest, tmp_path), Store(by_torch, tmp_path)
    for name in manifest.arrays:
        assert error(store.array(name), wanted.array(name).float()) < 1e-5, name
    assert run(prepared, tmp_path / "again", CONVERTED).arrays == manifest.arrays  # the same bytes

    encoded.clear()  # a text that is not stored goes through OpenVINO as well
    found = stored_texts(store, [1], ["pond. never stored"])(["pond. never stored", prepared.texts[0]])
    exact = build(TINY).encode_texts(build(TINY).tokenize(["pond. never stored"]), [1])
    assert encoded == [1] and error(found.pooled[:1], exact.pooled) < 1e-5


def test_without_the_extra_one_sentence_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"OpenVINO, which is not installed; `pip install 'cmer\[openvino\]'` adds it"):
        towers(build(CONVERTED), CONVERTED)


def test_openvino_is_imported_without_its_telemetry(openvino, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "openvino_telemetry")
    towers(build(CONVERTED), CONVERTED)
    assert sys.modules["openvino_telemetry"] is None
