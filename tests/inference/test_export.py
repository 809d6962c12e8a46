"""Exports embed as the run does, in the programs that they are for."""

import json
import sys
from pathlib import Path

import inference_cases as cases
import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import cmer
from cmer.backbones.tiny.options import TinyOptions
from cmer.cli.main import app
from cmer.errors import UserError
from cmer.features.views import dihedral
from cmer.inference.export import Format, export, probe
from cmer.inference.export.encoders import _dihedral
from cmer.inference.export.open_clip import _complete
from cmer.provenance import stored_record
from cmer.training.checkpoint import load as load_checkpoint
from cmer.training.embedding import embed_run

TINY = {"kind": "tiny", "features": {"views": 4}}
BRANCHES = {"text": "side_branch", "hidden": 24, "heads": 3}
SMALL_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2},
}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def clip(workspace):
    """A model that open_clip knows by name."""
    Path("small-clip.json").write_text(json.dumps(SMALL_CLIP))
    open_clip.add_model_config(Path("small-clip.json"))
    return {"kind": "open_clip", "model": "small-clip"}


def call(to, out):
    done = CliRunner().invoke(app, ["export", str(cases.CHECKPOINT), "--to", to, "--out", out], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


# --- a checkpoint of half the size ------------------------------------------------------------------------------------


def test_a_checkpoint_of_half_the_size_embeds_nearly_the_same(prepared, workspace) -> None:
    spec = cases.run_spec(prepared, "cmer", BRANCHES, TINY)
    cases.draw(spec)
    call("safetensors", "half.safetensors")
    assert Path("half.safetensors").stat().st_size < 0.7 * cases.CHECKPOINT.stat().st_size
    for name, tensor in load_file(cases.CHECKPOINT).items():
        half = load_file("half.safetensors")[name]
        assert torch.equal(half, tensor.half() if tensor.ndim > 1 else tensor)
    exact, near = cmer.load(cases.CHECKPOINT), cmer.load("half.safetensors")
    assert exact.digest != near.digest and exact.name == near.name
    for found, right in zip(probe.embedded(near), probe.embedded(exact), strict=True):
        assert 0 < np.abs(found - right).max() < 1e-3
    frozen = stored_record("half.safetensors")["frozen_weights"]
    assert stored_record("half.safetensors") == stored_record(cases.CHECKPOINT) | {"frozen_weights": frozen}


def test_a_run_is_not_overwritten(prepared, workspace) -> None:
    cases.draw(cases.run_spec(prepared, "linear_probe", backbone=TINY))
    before = cases.CHECKPOINT.read_bytes()
    with pytest.raises(UserError, match="--out would overwrite checkpoint"):
        call("safetensors", str(cases.CHECKPOINT))
    assert cases.CHECKPOINT.read_bytes() == before


def test_the_workflow_reads_it_too(prepared, workspace) -> None:
    spec = cases.run_spec(prepared, "cmer", BRANCHES, TINY)
    files = cases.train(prepared, spec)
    images, texts = cases.expected(prepared)
    export(str(cases.CHECKPOINT), Format.safetensors, Path("half.safetensors"))
    embed_run(Path("half.safetensors"), files, prepared.queries, "{label}. {caption}", Path("embeddings.safetensors"))
    for found, right in zip(cases.expected(prepared), (images, texts), strict=True):
        assert 0 < (found - right).abs().max() < 5e-3


def test_other_frozen_weights_are_refused(prepared, workspace, monkeypatch) -> None:
    cases.draw(cases.run_spec(prepared, "linear_probe", backbone=TINY))
    call("safetensors", "half.safetensors")
    monkeypatch.setattr("cmer.backbones.tiny.model.torch.manual_seed", lambda _: torch.rand(1))
    with pytest.raises(UserError, match="was exported from other frozen weights"):
        cmer.load("half.safetensors")


def test_values_that_half_precision_does_not_hold_are_refused(prepared, workspace) -> None:
    cases.draw(cases.run_spec(prepared, "linear_probe", backbone=TINY))
    tensors, _ = load_checkpoint(cases.CHECKPOINT)
    tensors["image.weight"][0, 0] = 1e6
    cases.write(cases.run_spec(prepared, "linear_probe", backbone=TINY), tensors)
    with pytest.raises(UserError, match=r"image\.weight has values that float16 does not hold"):
        export(str(cases.CHECKPOINT), Format.safetensors, Path("half.safetensors"))
    assert not Path("half.safetensors").exists()


# --- open_clip --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "inputs"),
    [
        ("clip_lora", {"preset": "all_maps"}, "online"),
        ("clip_lora", {"preset": "in_projections"}, "online"),
        ("clip_bitfit", {}, "online"),
        ("single_language", {}, "online"),
        ("zero_shot", {}, "stored"),
    ],
)
def test_open_clip_embeds_with_the_exported_weights_as_the_run_does(prepared, clip, method, options, inputs) -> None:
    cases.draw(cases.run_spec(prepared, method, options, clip, inputs=inputs))
    model = cmer.load(cases.CHECKPOINT)
    assert "model: small-clip" in call("open_clip", "clip.safetensors")
    there, _, preprocess = open_clip.create_model_and_transforms("small-clip", pretrained="clip.safetensors")
    there.eval()
    pictures, texts = probe.pictures(), list(probe.TEXTS)
    with torch.no_grad():
        images = there.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
        words = there.encode_text(open_clip.get_tokenizer("small-clip")(texts), normalize=True)
    np.testing.assert_allclose(images, model.encode_images(pictures), atol=1e-5)
    np.testing.assert_allclose(words, model.encode_texts(texts), atol=1e-5)
    heads = getattr(model.method, "heads", None)
    assert there.logit_scale.exp().item() == pytest.approx(heads.scale().item() if heads else 1 / 0.07, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "options", "inputs", "sentence"),
    [
        ("linear_probe", {}, "stored", "trains image.bias, for which an open_clip model has no place"),
        ("cmer", BRANCHES, "stored", "trains image_branch"),
        ("cross_modal_adapter", {}, "online", "trains adapters.image_64.down.bias"),
    ],
)
def test_parts_that_open_clip_lacks_are_refused(prepared, clip, method, options, inputs, sentence) -> None:
    cases.draw(cases.run_spec(prepared, method, options, clip, inputs=inputs))
    with pytest.raises(UserError, match=sentence):
        export(str(cases.CHECKPOINT), Format.open_clip, Path("clip.safetensors"))
    assert not Path("clip.safetensors").exists()


@pytest.mark.parametrize(
    ("known", "sentence"),
    [({"a": torch.ones(1)}, "which lacks b"), ({"a": torch.ones(1), "b": torch.ones(2), "c.d": None}, "alone has c.d")],
)
def test_models_of_other_parts_are_refused(workspace, known, sentence) -> None:
    model = cmer.load(TinyOptions(kind="tiny"))
    state, known = {"a": torch.zeros(1), "b": torch.zeros(2)}, known | {"logit_scale": torch.tensor(0.0)}
    with pytest.raises(UserError, match=sentence):
        _complete(state, known, model.source.backbone.shapes, model)


def test_towers_that_open_clip_does_not_know_are_refused(prepared, workspace) -> None:
    cases.draw(cases.run_spec(prepared, "zero_shot", backbone=TINY))
    with pytest.raises(UserError, match="has the towers of tiny, which open_clip does not know"):
        export(str(cases.CHECKPOINT), Format.open_clip, Path("clip.safetensors"))


# --- ONNX -------------------------------------------------------------------------------------------------------------


def run_graph(file, **inputs):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {each.name: inputs[each.name] for each in session.get_inputs()})[0]


@pytest.mark.parametrize(
    ("method", "options", "inputs"),
    [
        ("cmer", BRANCHES | {"focus_field": 3, "focus_dropout": 0.5}, "stored"),
        ("linear_probe", {}, "stored"),
        ("clip_lora", {}, "online"),
    ],
)
def test_onnx_runtime_embeds_as_the_run_does(prepared, workspace, method, options, inputs) -> None:
    cases.draw(cases.run_spec(prepared, method, options, TINY, inputs=inputs))
    model = cmer.load(cases.CHECKPOINT)
    assert "largest_difference" in call("onnx", "run.onnx")
    described = json.loads(Path("run.json").read_text())
    squares = np.stack([square(p) for p in probe.pictures()])
    for batch in (squares[:1], np.concatenate([squares] * 5)):
        right = model.encode_images([*probe.pictures()] * (len(batch) // 3 or 1))[: len(batch)]
        np.testing.assert_allclose(run_graph("run.image.onnx", squares=batch), right, atol=1e-5)
    ids, mask = (np.array(described["example"][name]) for name in ("ids", "mask"))
    right = model.encode_texts(described["example"]["texts"])
    np.testing.assert_allclose(run_graph("run.text.onnx", ids=ids, mask=mask), right, atol=1e-5)
    alone = run_graph("run.text.onnx", ids=ids[:1, : mask[0].sum()], mask=mask[:1, : mask[0].sum()])
    np.testing.assert_allclose(alone, right[:1], atol=1e-5)
    np.testing.assert_allclose(described["example"]["scores"], right @ right.T, atol=1e-5)
    assert described["image"]["squares"] == "uint8 [batch, 3, 32, 32], RGB" and described["image"]["views"] == 4


def square(picture):
    """By hand, as the description says: the shorter side to 32, then the centre, bicubic."""
    width, height = picture.size
    scale = 32 / min(width, height)
    resized = picture.resize((int(width * scale), int(height * scale)), 3)
    left, top = round((resized.width - 32) / 2), round((resized.height - 32) / 2)
    return np.asarray(resized.crop((left, top, left + 32, top + 32))).transpose(2, 0, 1)


def test_a_graph_that_differs_is_not_written(prepared, workspace, monkeypatch) -> None:
    cases.draw(cases.run_spec(prepared, "linear_probe", backbone=TINY))
    monkeypatch.setattr("cmer.inference.export.onnx.LARGEST_DIFFERENCE", 0.0)
    with pytest.raises(UserError, match=r"ONNX Runtime differs from the run by \d\.\de-\d+, more than 0e\+00"):
        export(str(cases.CHECKPOINT), Format.onnx, Path("run.onnx"))
    assert [path.name for path in Path().iterdir()] == [cases.CHECKPOINT.name]


def test_what_onnx_cannot_express_is_a_sentence(prepared, workspace, monkeypatch) -> None:
    cases.draw(cases.run_spec(prepared, "linear_probe", backbone=TINY))
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match=r"run any\.linear_probe cannot be written as ONNX: division by zero"):
        export(str(cases.CHECKPOINT), Format.onnx, Path("run.onnx"))


def test_what_onnx_needs_is_said_before_anything_is_loaded(workspace, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        UserError, match=r"the format onnx needs the extra `onnx`; `pip install 'cmer\[onnx\]'` adds it"
    ):
        export("missing.safetensors", Format.onnx, Path("run.onnx"))


def test_towers_that_no_onnx_file_holds_are_refused(prepared, workspace, monkeypatch) -> None:
    cases.draw(cases.run_spec(prepared, "linear_probe", backbone=TINY))
    monkeypatch.setattr("cmer.inference.export.onnx.LARGEST_GRAPH", 1000)
    with pytest.raises(UserError, match="more than an ONNX file holds; export to safetensors"):
        export(str(cases.CHECKPOINT), Format.onnx, Path("run.onnx"))


def test_views_of_the_graph_are_those_of_the_features() -> None:
    pixels = torch.arange(2 * 3 * 5 * 5.0).view(2, 3, 5, 5)
    assert all(torch.equal(_dihedral(pixels, view), dihedral(pixels, view)) for view in range(8))


def test_a_name_of_another_format_is_refused(workspace) -> None:
    with pytest.raises(UserError, match=r"--out run.pt must end in \.onnx"):
        export("run", Format.onnx, Path("run.pt"))
