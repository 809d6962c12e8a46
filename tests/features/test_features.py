import hashlib
import json
from threading import Barrier

import feature_cases
import numpy as np
import pytest
import torch
from PIL import Image

from cmer.backbones.build import build
from cmer.backbones.tiny.options import TinyOptions
from cmer.config.backbones import FeatureOptions
from cmer.config.datasets import RangeStretch, Raster
from cmer.data.images import FolderImages, open_images
from cmer.errors import UserError
from cmer.features import extract as extraction
from cmer.features.device import threads
from cmer.features.extract import extract, open_store
from cmer.features.inputs import OnlineImages, online_images, online_texts
from cmer.features.sink import Sink
from cmer.features.store import FeatureSpec, Manifest, Store
from cmer.features.views import dihedral

BACKBONE = TinyOptions(kind="tiny", printed="tiny", features=FeatureOptions(views=4))


def run(prepared, cache, backbone=BACKBONE):
    return feature_cases.run(prepared, cache, backbone)


@pytest.fixture(scope="module")
def stored(prepared, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return Store(run(prepared, cache), cache)


def test_stored_features_are_those_of_the_towers(prepared, stored) -> None:
    backbone = build(BACKBONE)
    images = open_images(prepared.options, prepared.folder)
    pixels = OnlineImages(backbone.preprocess, images, prepared.pairs.files, prepared.pairs.sha256, crop=False)
    online = online_images(pixels, backbone, BACKBONE, [0, 1])
    ids, views = np.array([3, 0, 17]), np.array([0, 3, 1])
    here, there = stored.images(ids, views, [0, 1]), online(ids, views, training=True)
    assert torch.allclose(here.pooled, there.pooled, atol=1e-5)
    for block in (0, 1):
        assert torch.allclose(here.blocks[block], there.blocks[block], atol=1e-5)
    texts = [prepared.pairs.texts[0], prepared.pairs.prompts[7], prepared.pairs.texts[4]]
    here, there = stored.texts(texts, [1]), online_texts(backbone, BACKBONE, [1])(texts)
    assert torch.allclose(here.pooled, there.pooled, atol=1e-5)
    assert torch.equal(here.mask, there.mask)
    assert torch.allclose(here.blocks[1], there.blocks[1] * there.mask[..., None], atol=1e-5)


def test_views_are_the_eight_symmetries_of_a_square() -> None:
    pixels = torch.randn(3, 5, 5)
    views = [dihedral(pixels, view) for view in range(8)]
    assert torch.equal(views[0], pixels)
    assert all(not torch.equal(views[i], views[j]) for i in range(8) for j in range(i))
    assert torch.equal(dihedral(views[1], 3), pixels)


def test_an_interrupted_extraction_ends_with_the_same_bytes(prepared, stored, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(extraction, "IMAGES_A_BATCH", 8)
    whole = run(prepared, tmp_path / "whole")
    sink = Sink.append
    calls = 0

    def dies(self, name, rows):
        nonlocal calls
        calls += 1
        sink(self, name, rows)
        if calls == 7:  # in the middle of a batch, its first arrays written
            raise KeyboardInterrupt

    monkeypatch.setattr(Sink, "append", dies)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, tmp_path / "killed")
    monkeypatch.setattr(Sink, "append", sink)
    assert 0 < json.loads(next((tmp_path / "killed").glob("*/progress.json")).read_text())["images"] < 36
    assert run(prepared, tmp_path / "killed").arrays == whole.arrays


def test_images_are_decoded_in_order_by_as_many_threads_as_the_towers_have(prepared, monkeypatch) -> None:
    monkeypatch.setattr(extraction, "IMAGES_A_BATCH", 8)
    images, preprocess = open_images(prepared.options, prepared.folder), build(BACKBONE).preprocess
    files, hashes = prepared.pairs.files, prepared.pairs.sha256
    wanted = [preprocess.square(images.load(file, sha)) for file, sha in zip(files, hashes, strict=True)]
    load, two = FolderImages.load, Barrier(2, timeout=30)  # 36 images: a single thread would wait for ever
    monkeypatch.setattr(FolderImages, "load", lambda *a: (two.wait(), load(*a))[1])
    with threads(2):
        batches = list(extraction._pixels(files, hashes, images, preprocess))
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 4]
    assert torch.equal(torch.cat(batches), torch.stack(wanted))


def test_a_second_extraction_opens_no_image(prepared, stored, monkeypatch) -> None:
    monkeypatch.setattr("cmer.data.images.FolderImages.read", lambda *_: pytest.fail("opened an image"))
    assert run(prepared, stored._folder.parent).model_dump_json() == stored.manifest.model_dump_json()


def test_missing_arrays_are_rebuilt_and_must_be_the_same(prepared, stored, tmp_path) -> None:
    manifest = stored.manifest
    rebuilt = open_store(manifest, tmp_path / "empty", lambda old: run(prepared, tmp_path / "empty"))
    assert torch.equal(rebuilt.array("image_block_1"), stored.array("image_block_1"))
    other = BACKBONE.model_copy(update={"seed": 1})
    with pytest.raises(UserError, match="other images, texts, code or weights"):
        open_store(manifest, tmp_path / "none", lambda old: run(prepared, tmp_path / "other", other))


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:99])])
def test_a_damaged_cache_is_extracted_anew(prepared, stored, tmp_path, damage) -> None:
    whole = run(prepared, tmp_path)
    damage(tmp_path / whole.digest / "image_block_0.bin")
    assert [path.name for path in whole.damaged(tmp_path)] == ["image_block_0.bin"]
    assert run(prepared, tmp_path).arrays == whole.arrays


def test_a_rebuild_leaves_the_callers_threads_alone(prepared, tmp_path) -> None:
    before = torch.get_num_threads()
    run(prepared, tmp_path, BACKBONE.model_copy(update={"threads": before + 1}))
    assert torch.get_num_threads() == before


def test_blocks_are_named_in_order_and_once() -> None:
    for blocks in ([1, 0], [1, 1], [-1], [2000]):
        with pytest.raises(ValueError, match=r"ascending, each once|greater than or equal to 0|less than or equal to"):
            FeatureOptions(blocks=blocks)


def test_clear_errors(prepared, stored, tmp_path) -> None:
    with pytest.raises(UserError, match="no stored features for the text 'never seen'"):
        stored.texts(["never seen"], [])
    with pytest.raises(UserError, match="have no image_block_9"):
        stored.images(np.array([0]), np.array([0]), [9])
    with pytest.raises(UserError, match=r"blocks: \[5\] not among the backbone's blocks 0 to 1"):
        run(prepared, tmp_path, BACKBONE.model_copy(update={"features": FeatureOptions(blocks=[5])}))
    with pytest.raises(UserError, match="does not exist"):
        Manifest.read(tmp_path / "none.json")


def test_a_full_disk_says_so_and_keeps_what_is_done(prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(extraction, "IMAGES_A_BATCH", 8)
    sink = Sink.append

    def full(self, name, rows):
        if name == "image_block_1" and self.state["images"] == 16:
            with monkeypatch.context() as patch:
                patch.setattr("pathlib.Path.open", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
                sink(self, name, rows)
        sink(self, name, rows)

    monkeypatch.setattr(Sink, "append", full)
    with pytest.raises(UserError, match=r"No space left.*free space and rerun the same command"):
        run(prepared, tmp_path)
    monkeypatch.setattr(Sink, "append", sink)
    assert json.loads(next(tmp_path.glob("*/progress.json")).read_text())["images"] == 16
    assert run(prepared, tmp_path).arrays["pooled_images"].shape[0] == 36


def test_another_stretch_of_the_same_rasters_is_another_extraction(prepared, tmp_path) -> None:
    Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32) * 8).save(tmp_path / "a.tif")
    sha = hashlib.sha256((tmp_path / "a.tif").read_bytes()).hexdigest()
    spec = FeatureSpec(dataset=prepared.options, backbone=BACKBONE)
    found = []
    for high in (2000, 8000):
        rule = Raster(bands=(1, 1, 1), stretch=RangeStretch(kind="range", low=0, high=high))
        manifest = extract(spec, ["a.tif"], [sha], FolderImages(tmp_path, rule), ["a pond"], tmp_path / "cache")
        found.append((manifest.digest, manifest.arrays["pooled_images"].sha256))
    assert found[0][0] != found[1][0] and found[0][1] != found[1][1]
