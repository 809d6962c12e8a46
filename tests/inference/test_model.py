"""A model in hand gives the embeddings that `cmer embed` wrote for its run, from the checkpoint alone."""

import shutil
import subprocess
import sys
from pathlib import Path

import inference_cases as cases
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cmer
from cmer.backbones.lite.options import LiteOptions
from cmer.backbones.tiny.options import TinyOptions
from cmer.errors import UserError
from cmer.inference import model as module

TINY = {"kind": "tiny", "features": {"views": 4}}
BRANCHES = {"text": "side_branch", "hidden": 24, "heads": 3}
CMPAGL = {"image_size": 16, "width": 8, "depths": [1, 1], "heads": [2, 2], "window": 2, "text_model": "tiny"}
SMALL_CNN = {"image_size": 32, "image_model": "test_resnet", "image_weights": None}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plain_captions(prepared):
    return pd.read_csv(prepared.queries)["none"].tolist()


@pytest.mark.parametrize(
    ("method", "options", "backbone", "training"),
    [
        ("linear_probe", {}, TINY, {}),
        ("zero_shot", {}, TINY, {}),
        ("cmer", BRANCHES, TINY, {}),
        ("cmer", {"hidden": 24, "heads": 3}, TINY | {"features": {"dtype": "bfloat16", "blocks": [1]}}, {}),
        ("linear_probe", {}, {"kind": "tiny", "precision": "bfloat16"}, {"precision": "bfloat16"}),
        ("clip_lora", {}, TINY, {"inputs": "online"}),
        ("cmpagl", CMPAGL, None, {"inputs": "online"}),
    ],
)
def test_it_embeds_as_the_evaluation_does_without_the_dataset(
    prepared, workspace, monkeypatch, method, options, backbone, training
) -> None:
    spec = cases.run_spec(prepared, method, options, backbone, **training)
    cases.train(prepared, spec)
    shutil.rmtree("work")
    pictures = [Image.open(file) for file in cases.test_files(prepared)]  # of another name than the dataset's
    monkeypatch.setattr("cmer.data.pairs.Pairs.read", lambda *_: pytest.fail("read the dataset"))
    model = cmer.load(cases.CHECKPOINT)
    images, texts = cases.expected(prepared)
    # Batches differ, and with them the last bits; in bfloat16 these are 8 bits away from those of float32.
    atol = 2e-2 if spec.training.precision == "bfloat16" else 1e-5
    np.testing.assert_allclose(model.encode_images(pictures), images, atol=atol)
    np.testing.assert_allclose(model.encode_texts(plain_captions(prepared)), texts, atol=atol)
    assert model.name == f"any.{method}" and model.dim == images.shape[1]


def test_a_run_on_the_lite_towers(prepared, workspace) -> None:
    backbone = {"kind": "lite", "size": 64, "precision": "float32"}
    backbone["features"] = {"views": 4, "blocks": [10], "text_blocks": [0]}
    cases.train(prepared, cases.run_spec(prepared, "cmer", BRANCHES, backbone))
    model = cmer.load(str(cases.CHECKPOINT))
    images, texts = cases.expected(prepared)
    np.testing.assert_allclose(model.encode_images(cases.test_files(prepared)), images, atol=1e-5)
    np.testing.assert_allclose(model.encode_texts(plain_captions(prepared)), texts, atol=1e-5)
    with pytest.raises(UserError, match="share a space"):
        cmer.load(LiteOptions(kind="lite", printed="lite"))


def test_openvino_runs_the_frozen_towers_of_a_run_that_torch_ran(prepared, workspace) -> None:
    backbone = {"kind": "lite", "size": 64, "precision": "float32"}
    backbone["features"] = {"views": 4, "dtype": "float32", "blocks": [10], "text_blocks": [0]}
    cases.train(prepared, cases.run_spec(prepared, "cmer", BRANCHES, backbone))
    torch_model, model = cmer.load(cases.CHECKPOINT), cmer.load(cases.CHECKPOINT, "openvino")
    files, before = cases.test_files(prepared), torch.get_num_threads()
    found, exact = model.encode_images(files), torch_model.encode_images(files)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    assert not np.array_equal(found, exact) and model.digest == torch_model.digest
    assert torch.get_num_threads() == before


def test_a_runtime_of_towers_that_the_run_adapts_is_refused(prepared, workspace) -> None:
    cases.write(cases.run_spec(prepared, "clip_lora", {}, TINY, inputs="online"), {})
    with pytest.raises(UserError, match=r"run any.clip_lora runs towers that it adapts .* omit the runtime"):
        cmer.load(cases.CHECKPOINT, "openvino")


def test_features_are_rounded_as_the_stored_ones_were(prepared, workspace, monkeypatch) -> None:
    """With 8 bits, they are nearer to the run's embeddings than the exact features are."""
    backbone = TINY | {"features": {"dtype": "int8"}}
    cases.train(prepared, cases.run_spec(prepared, "cmer", BRANCHES, backbone))
    model, (images, texts) = cmer.load(cases.CHECKPOINT), cases.expected(prepared)
    near = [model.encode_images(cases.test_files(prepared)), model.encode_texts(plain_captions(prepared))]
    monkeypatch.setattr(module, "_rounding", lambda inputs, _: inputs)
    for found, exact, right in zip(
        near,
        [model.encode_images(cases.test_files(prepared)), model.encode_texts(plain_captions(prepared))],
        (images.numpy(), texts.numpy()),
        strict=True,
    ):
        assert 3 * np.abs(found - right).max() < np.abs(exact - right).max()


@pytest.mark.parametrize(
    ("method", "options", "sentence"),
    [
        ("hvsa", SMALL_CNN, "run any.hvsa has its words from the captions that it was trained on"),
        ("amfmn", SMALL_CNN, "run any.amfmn has no embeddings: its method, amfmn, scores every pair"),
        ("cmpagl", CMPAGL | {"pre_alignment": False}, "run any.cmpagl has no embeddings: its method, cmpagl, scores"),
    ],
)
def test_a_method_that_cannot_embed_a_text_alone_says_so(prepared, workspace, method, options, sentence) -> None:
    cases.write(cases.run_spec(prepared, method, options, inputs="online"), {})
    with pytest.raises(UserError, match=sentence):
        cmer.load(cases.CHECKPOINT)


def test_the_digest_changes_with_spec_tensors_and_frozen_weights(prepared, workspace) -> None:
    spec = cases.run_spec(prepared, "zero_shot", backbone=TINY)
    other = cases.run_spec(prepared, "zero_shot", backbone=TINY | {"seed": 1})
    digests = [digest_of(spec), digest_of(spec), digest_of(spec, seed=1), digest_of(other)]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    bare = [TinyOptions(kind="tiny", printed=name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("a", 1))]
    first, renamed, reseeded = (cmer.load(options) for options in bare)
    assert first.digest == renamed.digest != reseeded.digest and (first.name, renamed.name) == ("a", "b")


def test_the_digest_changes_with_frozen_weights_alone(prepared, workspace, monkeypatch) -> None:
    spec = cases.run_spec(prepared, "zero_shot", backbone=TINY)
    before = digest_of(spec)
    monkeypatch.setattr("cmer.backbones.tiny.model.torch.manual_seed", lambda _: torch.rand(1))
    assert digest_of(spec) != before


def digest_of(spec, **changed):
    cases.write(spec.model_copy(update=changed), {})
    return cmer.load(cases.CHECKPOINT).digest


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("missing.safetensors", "missing.safetensors does not exist"),
        ("ViT-B-32", "ViT-B-32 is neither a checkpoint nor the name of a model"),
        (".", ". is a folder; give a checkpoint"),
        ("text.txt", "text.txt is damaged"),
    ],
)
def test_what_is_no_model_is_named(workspace, source, sentence) -> None:
    Path("text.txt").write_text("no model")
    with pytest.raises(UserError, match=sentence):
        cmer.load(source)


def test_bad_images_and_texts_are_named(workspace) -> None:
    model = cmer.load(TinyOptions(kind="tiny"))
    Path("broken.png").write_bytes(b"no image")
    Image.effect_noise((20, 20), 50).save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:200])
    for images, sentence in (
        (["missing.png"], "missing.png does not exist"),
        (["."], ". is a folder"),
        (["whole.png", "broken.png"], "image broken.png cannot be decoded: not an image in a known format"),
        ([Path("cut.png")], "image cut.png cannot be decoded"),
        ([Image.open("cut.png")], "image .*cut.png cannot be decoded"),
        ([Image.new("F", (3, 4))], "image 3 x 4 does not have 8 bits"),
        ("whole.png", "a list of images is needed"),
        (Path("whole.png"), "a list of images is needed"),
    ):
        with pytest.raises(UserError, match=sentence):
            model.encode_images(images)
    for texts, sentence in ((["a", " \n"], "text 1 is blank"), ("a pond", "a list of texts is needed")):
        with pytest.raises(UserError, match=sentence):
            model.encode_texts(texts)


# --- embedding and ranking --------------------------------------------------------------------------------------------


def test_rows_are_unit_vectors_in_the_order_given(prepared, monkeypatch) -> None:
    monkeypatch.setattr(module, "DECODED_AT_ONCE", 4)
    monkeypatch.setattr(module, "IMAGES_A_PART", 3)
    model, files = cmer.load(TinyOptions(kind="tiny", features={"views": 4})), cases.test_files(prepared)
    together = model.encode_images(files)
    assert together.dtype == np.float32 and together.shape == (9, model.dim)
    np.testing.assert_allclose(together, np.concatenate([model.encode_images([file]) for file in files]), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    texts = ["a pond", "many trees beside a road", "a pond"]
    found = model.encode_texts(texts)
    assert (found[0] == found[2]).all() and found.dtype == np.float32
    np.testing.assert_allclose(found[1], model.encode_texts(texts[1:2])[0], atol=1e-6)
    assert model.encode_images([]).shape == model.encode_texts([]).shape == (0, model.dim)


def test_views_do_not_depend_on_which_way_is_up() -> None:
    model = cmer.load(TinyOptions(kind="tiny", features={"views": 4}))
    picture = Image.effect_noise((32, 32), 80)
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    upright, lying = model.encode_images([picture, turned])
    np.testing.assert_allclose(upright, lying, atol=1e-5)
    one = cmer.load(TinyOptions(kind="tiny"))
    assert np.abs(np.subtract(*one.encode_images([picture, turned]))).max() > 1e-3


def test_a_picture_is_turned_as_its_exif_says(workspace) -> None:
    model = cmer.load(TinyOptions(kind="tiny"))
    picture = Image.effect_noise((32, 32), 80)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save("turned.png", exif=exif)
    right = model.encode_images([picture.transpose(Image.Transpose.ROTATE_180)])
    np.testing.assert_allclose(model.encode_images(["turned.png"]), right, atol=1e-6)
    np.testing.assert_allclose(model.encode_images([Image.open("turned.png")]), right, atol=1e-6)


def test_ranking_is_by_cosine_and_stable(prepared) -> None:
    model, files = cmer.load(TinyOptions(kind="tiny")), cases.test_files(prepared)
    images = model.encode_images(files)
    images[5] = images[2]
    for query in ("a pond", files[2], Image.open(files[2]), 3 * images[2]):
        vector = query if isinstance(query, np.ndarray) else None
        if vector is None:
            vector = (model.encode_texts if isinstance(query, str) else model.encode_images)([query])[0]
        cosines = [float(row @ vector / np.linalg.norm(vector)) for row in images]
        order = sorted(range(9), key=lambda i: (-np.float32(cosines[i]), i))
        found = model.rank(query, images, top=4)
        assert found.scores.dtype == np.float32 and len(found.indices) == 4
        np.testing.assert_allclose(found.scores, [cosines[i] for i in found.indices], atol=1e-6)
        if not isinstance(query, str):
            assert found.indices[:2].tolist() == [2, 5] and found.scores[0] == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(found.scores, [cosines[i] for i in order[:4]], atol=1e-6)
    assert len(model.rank("a pond", images, top=100).indices) == 9
    twins = np.tile(images[[3, 2]], (100, 1))
    assert model.rank(images[2], twins, top=200).indices.tolist() == [*range(1, 200, 2), *range(0, 200, 2)]
    with pytest.raises(UserError, match=r"embeddings of shape \[9, 31\] do not fit a query of \[32\]"):
        model.rank("a pond", images[:, 1:])


def test_importing_cmer_does_not_import_torch() -> None:
    script = "import sys, cmer; print('torch' in sys.modules, callable(cmer.load), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False True True\n"
    with pytest.raises(AttributeError, match="no attribute 'save'"):
        cmer.save  # noqa: B018
