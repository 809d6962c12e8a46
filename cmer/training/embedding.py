"""Embedding of a dataset with a trained run. Called by the commands."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmer.config.base import changes, validate
from cmer.config.runs import RunSpec
from cmer.data.frames import IMAGES, QUERIES, digest_of_test_split, read_frame
from cmer.data.pairs import Ints, Pairs
from cmer.data.prompts import predicted_queries
from cmer.errors import UserError
from cmer.features.device import device
from cmer.provenance import code_digest, versions
from cmer.retrieval import MODULES
from cmer.retrieval.embed import bank, embeddings, pair_forwards
from cmer.training.assembly import Assembled, RunFiles, assemble
from cmer.training.checkpoint import load, load_tensors, save


def embed_run(
    checkpoint: Path, files: RunFiles, queries: Path, template: str, out: Path, run: RunSpec | None = None
) -> None:
    """Encode the test images and the test captions under the label protocols, and write the embeddings.

    A run whose queries are rich texts has these under protocol `rich`, and no test caption.

    Args:
        checkpoint: checkpoint of the trained run.
        files: the files that the run was trained on.
        queries: the test captions under the label protocols that do not depend on the run.
        template: prompt template of the dataset, for protocol `predicted`.
        out: file for the embeddings.
        run: the run that the checkpoint must be of; None accepts any.

    Raises:
        UserError: the checkpoint is missing or damaged, or belongs to another run.
    """
    trained = trained_run(checkpoint, files, run)
    pairs = trained.pairs
    frame = read_frame(queries, QUERIES)
    texts = {name: frame[name].tolist() for name in frame.columns.drop(["caption_id", "image_id"])}
    texts["predicted"] = predicted_queries(template, pairs, texts["none"])
    if (wanted := trained.spec.options.protocols) is not None:
        texts = {name: texts[name] for name in wanted}
    ready = trained.assemble(pairs.test_images, texts.get("predicted", ()))
    made = _made(trained.spec) | {"test": digest_of_test_split(read_frame(files.folder / "images.csv", IMAGES), frame)}
    if ready.queries:
        texts = {"rich": ready.queries.texts}
        made |= {"rich_queries": ready.queries.counts()}
    precision, views = trained.spec.training.precision, trained.spec.views
    if ready.method.scoring != "embedding":
        count = len(pairs.test_images)
        made["pair_forwards"] = {name: pair_forwards(ready.method, count, texts[name], views) for name in texts}
    found = embeddings(ready.method, ready.inputs, pairs.test_images, views, texts, precision)
    if ready.queries:
        found["owners/rich"] = torch.from_numpy(ready.queries.owners)
    save(out, found, trained.record | {"embedding": made})


def bank_run(checkpoint: Path, files: RunFiles, out: Path, run: RunSpec | None = None) -> None:
    """Encode the validation split, on which rerankers are chosen, and the train split, and write both.

    Args:
        checkpoint: checkpoint of the trained run.
        files: the files that the run was trained on.
        out: file for the embeddings.
        run: the run that the checkpoint must be of; None accepts any.

    Raises:
        UserError: the checkpoint is missing or damaged, or belongs to another run.
    """
    trained = trained_run(checkpoint, files, run)
    ready = trained.assemble(trained.pairs.val_images)
    found = bank(ready.method, ready.inputs, trained.pairs, trained.spec.views, trained.spec.training.precision)
    save(out, found, trained.record | {"embedding": _made(trained.spec), "bank": True})


@dataclass(frozen=True)
class TrainedRun:
    """A trained run: its checkpoint, the files that it was trained on, its spec, pairs, tensors and record."""

    checkpoint: Path
    files: RunFiles
    spec: RunSpec
    pairs: Pairs
    tensors: dict[str, Tensor]
    record: dict[str, Any]

    def assemble(self, gallery: Ints, unstored: Collection[str] = ()) -> Assembled:
        """The run with its trained weights; see `cmer.training.assembly.assemble`."""
        files = self.files
        ready = assemble(self.spec, self.pairs, files.folder, files.features, unstored, files.rich, gallery)
        if ready.digest != self.record["features"]:
            raise UserError(
                f"{self.checkpoint} was trained on other images, features or weight files; give its own, or train again"
            )
        load_tensors(ready.method.trained(), self.tensors, self.checkpoint)
        return ready


def trained_run(checkpoint: Path, files: RunFiles, run: RunSpec | None) -> TrainedRun:
    """The checkpoint of a run and the pairs that it was trained on, with torch's threads set as in its training.

    Raises:
        UserError: the checkpoint is missing or damaged, or belongs to another run.
    """
    tensors, record = load(checkpoint)
    spec = validate(RunSpec, record["spec"], str(checkpoint))
    other = changes(spec, run) if run else []
    if other:
        raise UserError(f"{checkpoint} is of another run: its {', '.join(other)}; train this run (cmer train)")
    torch.set_num_threads(spec.training.threads)
    return TrainedRun(checkpoint, files, spec, files.pairs(spec), tensors, record)


def _made(spec: RunSpec) -> dict[str, Any]:
    return {"code": code_digest(*MODULES, *spec.modules()), "versions": versions(), "device": device().type}
