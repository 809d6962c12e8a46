"""Texts that are not stored, next to stored ones."""

import pytest
import torch

from cmer.backbones.build import build as built
from cmer.backbones.tiny.options import TinyOptions
from cmer.config.backbones import FeatureOptions
from cmer.data.images import open_images
from cmer.errors import UserError
from cmer.features import inputs
from cmer.features.device import threads
from cmer.features.extract import extract
from cmer.features.inputs import online_texts, stored_texts
from cmer.features.quantise import rounded
from cmer.features.store import FeatureSpec, Store

SHORT, LONG, NEW = "a pond", "a pond seen from above, with a forest beside it", "a text that nobody wrote"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_only_texts_that_are_not_stored_are_computed(prepared, tmp_path, monkeypatch, dtype) -> None:
    """They are rounded like the stored ones and computed with as many threads; the backbone is built once."""
    options = TinyOptions(kind="tiny", printed="tiny", threads=1, features=FeatureOptions(dtype=dtype))
    spec = FeatureSpec(dataset=prepared.options, backbone=options)
    images = open_images(prepared.options, prepared.folder)
    store = Store(extract(spec, [], [], images, [SHORT, LONG], tmp_path), tmp_path)
    computed, builds = [], []

    def build(_):
        builds.append(1)
        backbone = built(options)
        tokenize = backbone.tokenize
        backbone.tokenize = lambda texts: computed.append((list(texts), torch.get_num_threads())) or tokenize(texts)
        return backbone

    monkeypatch.setattr(inputs, "build", build)
    torch.set_num_threads(2)
    texts = stored_texts(store, [1], unstored=[NEW, SHORT])
    assert torch.equal(texts([SHORT, LONG]).pooled, store.texts([SHORT, LONG], [1]).pooled)
    assert not builds

    asked = [SHORT, NEW, LONG, NEW]
    texts(asked)
    found = texts(asked)
    assert computed == [([NEW], 1)] * 2 and len(builds) == 1
    assert torch.get_num_threads() == 2
    expected = {text: store.texts([text], [1]) for text in (SHORT, LONG)}
    with threads(1):  # as in the extraction: the last bits depend on it
        expected[NEW] = online_texts(built(options), options, [1])([NEW])
    for row, text in enumerate(asked):
        alone = expected[text]
        assert torch.equal(found.pooled[row], alone.pooled[0])
        block = alone.blocks[1][0][alone.mask[0]]
        if text == NEW or dtype != "int8":  # 8-bit numbers of 8-bit numbers may differ in the last bit
            block = rounded(block, dtype).float()
        assert torch.equal(found.blocks[1][row][found.mask[row]], block)
    with pytest.raises(UserError, match="no stored features for the text 'another'"):
        texts([NEW, "another"])
