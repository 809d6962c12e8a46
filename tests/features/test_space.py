"""Bytes of an extraction, before and after."""

from collections import namedtuple

import pytest

from cmer.backbones.build import build
from cmer.backbones.lite.options import LiteOptions
from cmer.backbones.tiny.options import TinyOptions
from cmer.config.backbones import FeatureOptions
from cmer.data.images import open_images
from cmer.errors import UserError
from cmer.features import extract as extraction
from cmer.features import space
from cmer.features.extract import extract
from cmer.features.space import Amounts, stored_bytes
from cmer.features.store import FeatureSpec

Usage = namedtuple("Usage", "total used free")


def tiny(**features):
    return TinyOptions(kind="tiny", printed="tiny", features=FeatureOptions(**features))


def run(prepared, cache, backbone, count=None):
    spec = FeatureSpec(dataset=prepared.options, backbone=backbone)
    images = open_images(prepared.options, prepared.folder)
    pairs = prepared.pairs
    return extract(spec, pairs.files[:count], pairs.sha256[:count], images, prepared.texts[:count], cache)


def written(folder):
    return sum(file.stat().st_size for file in folder.glob("*/*.bin"))


@pytest.mark.parametrize(
    ("backbone", "count"),
    [
        (tiny(), None),
        (tiny(dtype="int8", views=4), None),
        (tiny(dtype="bfloat16", blocks=[1], text_blocks=[]), None),
        (LiteOptions(kind="lite", size=64, features=FeatureOptions(views=4, dtype="int8")), 2),
        (LiteOptions(kind="lite", size=96, features=FeatureOptions(blocks=[0, 9], text_blocks=[0])), 2),
    ],
)
def test_the_bytes_written_are_those_predicted(prepared, tmp_path, monkeypatch, backbone, count) -> None:
    predicted = []
    check = space.require_space

    def noted(title, folder, shapes, options, amounts, done):
        predicted.append(stored_bytes(shapes, options, amounts))
        check(title, folder, shapes, options, amounts, done)

    monkeypatch.setattr(extraction, "require_space", noted)
    run(prepared, tmp_path, backbone, count)
    assert predicted == [written(tmp_path)]


def test_bytes_of_full_rsicd_by_hand() -> None:
    """EfficientNet-Lite0 at 224 pixels: block 10 has 7 x 7 patches and the class token, 320 channels."""
    shapes = build(LiteOptions(kind="lite")).shapes
    options = FeatureOptions(views=4, dtype="bfloat16", blocks=[10], text_blocks=[0])
    amounts = Amounts(images=10921, texts=40118, tokens=637373)
    expected = 10921 * 4 * (2048 * 4 + 50 * 320 * 2) + 40118 * (384 * 4 + 8) + 8 + 637373 * 384 * 2
    assert stored_bytes(shapes, options, amounts) == expected
    small = options.model_copy(update={"dtype": "int8"})
    assert expected - stored_bytes(shapes, small, amounts) == 10921 * 4 * 50 * (320 - 4) + 637373 * (384 - 4)


def test_a_disk_that_is_too_small_is_refused_before_any_image_is_opened(prepared, tmp_path, monkeypatch) -> None:
    needed = 36 * 4 * (32 * 4 + 2 * 17 * 64 * 4)  # alone the images, with both blocks
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: Usage(0, 0, needed))
    with monkeypatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr("cmer.data.images.FolderImages.read", lambda *_: pytest.fail("opened an image"))
        run(prepared, tmp_path, tiny(views=4))
    message = str(error.value)
    assert message.startswith("the features of squares from tiny take ")
    assert f"{needed / 2**30:.3g} GiB are free in {tmp_path}" in message
    for remedy in ("dtype: int8", "views: 1", "blocks: [1] and text_blocks: [1]", "inputs: online"):
        assert remedy in message
    smaller = tiny(views=1, dtype="int8", blocks=[1], text_blocks=[])
    run(prepared, tmp_path, smaller)  # fits in the same space
    assert 0 < written(tmp_path) < needed


def test_only_what_is_not_yet_written_must_fit(prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(extraction, "IMAGES_A_BATCH", 8)
    append = extraction.Sink.append

    def dies(self, name, rows):
        if name == "pooled_texts":
            raise KeyboardInterrupt
        append(self, name, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extraction.Sink, "append", dies)
        run(prepared, tmp_path, tiny())
    images = written(tmp_path) - 8 * (1 + 128)  # the first texts' starts are past the last mark
    whole = tmp_path / "whole"
    run(prepared, whole, tiny())
    left = written(whole) - images
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: Usage(0, 0, left - 1))
    with pytest.raises(UserError, match=r"take .* GiB, of which .* GiB are written"):
        run(prepared, tmp_path, tiny())
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: Usage(0, 0, left))
    run(prepared, tmp_path, tiny())
    assert written(tmp_path) == written(whole)
