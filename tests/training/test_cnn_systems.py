"""Systems of a CNN and a GRU go the whole way: they train, embed and are evaluated; AMFMN by scores of pairs."""

import re
from collections import Counter

import pytest
from safetensors.torch import load_file
from test_training import call, embed, evaluate, spec, train_arguments

from cmer.training.assembly import assemble

SMALL = {"image_size": 32, "image_model": "test_resnet", "image_weights": None, "word_width": 12, "gru_width": 16}


@pytest.mark.parametrize("method", ["amfmn", "mcrn"])
def test_it_trains_and_is_evaluated(prepared, tmp_path, monkeypatch, method) -> None:
    monkeypatch.chdir(tmp_path)
    run = spec(prepared, method, SMALL, inputs="online", epochs=2, epoch_of="images", batch_size=8)
    call(*train_arguments(prepared, run))
    embed(prepared)
    tensors = load_file("embeddings.safetensors")
    if method == "amfmn":
        assert tensors["scores/none"].shape == (9, 45) and "images" not in tensors
    else:
        assert tensors["images"].shape == (9, 512)
    found = evaluate(prepared)["protocols"]
    assert set(found) == {"none", "predicted", "oracle", "shuffled"} and 0 < found["none"]["mr"] < 100


def test_words_come_from_the_train_captions_alone(prepared) -> None:
    ready = assemble(spec(prepared, "amfmn", SMALL, inputs="online"), prepared.pairs, prepared.folder, None)
    train = [prepared.pairs.texts[caption] for caption in prepared.pairs.captions_of(prepared.pairs.train_images)]
    assert len(train) < len(prepared.pairs.texts)
    counts = Counter(re.findall("[a-z0-9]+", " ".join(train).lower()))
    known = [word for word, count in counts.items() if count >= 5]
    assert 0 < len(known) < len(counts) and ready.method.vocabulary.size == 1 + len(known)
