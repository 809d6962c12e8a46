"""What a run takes from its files: the images and texts that it trains on, validates on and embeds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import toy  # noqa: F401  (its methods register themselves)
from regression import Given, dataset, regression, trainer
from test_training import call, embed, spec, train_arguments

from cmer.data.prompts import predicted_queries
from cmer.errors import UserError
from cmer.provenance import stored_record
from cmer.retrieval.embed import embeddings
from cmer.training.loop import Trainer


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Image ids with whether they were for training, and texts, as a run asks its inputs for them."""
    monkeypatch.chdir(tmp_path)
    asked = Given()
    images, tokens = asked.images, asked.texts

    class Online:
        def __init__(self, preprocess, *_):
            self.size = preprocess.size

        def __call__(self, ids, views, training):
            images.append((ids.tolist(), views.tolist(), training))
            return torch.randn(len(ids), 3, self.size, self.size, generator=torch.Generator().manual_seed(int(ids[0])))

    def token_texts(tokenize):
        return lambda texts: tokens.extend(texts) or tokenize(texts)

    monkeypatch.setattr("cmer.training.assembly.OnlineImages", Online)
    monkeypatch.setattr("cmer.training.assembly.token_texts", token_texts)
    return asked


def queries_of(prepared):
    """Texts of each protocol; the labels of `predicted` come from the captions that the run trains on."""
    queries = pd.read_csv(prepared.queries)
    texts = {name: queries[name].tolist() for name in ("none", "oracle", "shuffled")}
    return texts | {"predicted": predicted_queries("{label}. {caption}", prepared.pairs, texts["none"])}


def test_a_run_reads_train_and_val_images_and_embeds_the_test_images_alone(prepared, given) -> None:
    pairs = prepared.pairs
    call(*train_arguments(prepared, spec(prepared, "toy_conditioned", inputs="online", epochs=2)))
    train = {image for images, _, training in given.images if training for image in images}
    val = [images for images, _, training in given.images if not training]
    assert train == set(pairs.train_images.tolist()) and val == [pairs.val_images.tolist()] * 2
    mine = np.concatenate([pairs.train_images, pairs.val_images])
    assert set(given.texts) == {pairs.texts[caption] for caption in pairs.captions_of(mine)}

    given.images.clear(), given.texts.clear()
    embed(prepared)
    assert given.images == [(pairs.test_images.tolist(), [0] * len(pairs.test_images), False)]
    assert set(given.texts) == {text for texts in queries_of(prepared).values() for text in texts}


def test_every_protocol_embeds_its_own_queries_with_the_saved_weights(prepared, given, monkeypatch) -> None:
    asked = {}

    def spy(method, inputs, images, views, queries, precision):
        asked.update(weights=method.trained(), queries=queries, views=views)
        return embeddings(method, inputs, images, views, queries, precision)

    state = {}
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self: state.setdefault("state", run(self)))
    monkeypatch.setattr("cmer.training.embedding.embeddings", spy)
    call(*train_arguments(prepared, spec(prepared, "toy_conditioned", inputs="online", ema=0.5)))
    embed(prepared)
    best = state["state"].best
    assert set(asked["weights"]) == set(best)
    assert all(torch.equal(tensor, best[name]) for name, tensor in asked["weights"].items())
    assert not torch.equal(best["out.weight"], state["state"].trained["out.weight"])
    assert asked["queries"] == queries_of(prepared)
    assert asked["views"] == 1


def test_a_run_records_its_best_epoch(prepared, given, monkeypatch) -> None:
    values = iter([10.0, 30.0, 20.0])
    monkeypatch.setattr(Trainer, "validate", lambda self, _: next(values))
    call(*train_arguments(prepared, spec(prepared, "toy_conditioned", inputs="online", epochs=3)))
    record = stored_record("checkpoint.safetensors")
    assert (record["best_epoch"], record["val_mr"], record["epochs"]) == (2, 30.0, 3)


def test_training_without_validation_images_or_with_one_train_image_is_refused(tmp_path) -> None:
    made, pairs = trainer(regression({}), tmp_path / "state.pt"), dataset()
    for changed in ({"val_images": pairs.val_images[:0]}, {"train_images": pairs.train_images[:1]}):
        with pytest.raises(UserError, match="training needs at least two and one"):
            Trainer(made.method, made.inputs, replace(pairs, **changed), made.spec, tmp_path / "state.pt")
