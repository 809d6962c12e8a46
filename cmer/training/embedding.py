"""Embedding of the test split with a trained run. Called by the commands."""

from __future__ import annotations

from pathlib import Path

import torch

from cmer.config.base import changes, validate
from cmer.config.runs import RunSpec
from cmer.data.frames import QUERIES, read_frame
from cmer.data.prompts import predicted_queries
from cmer.errors import UserError
from cmer.features.device import device
from cmer.provenance import code_digest, versions
from cmer.retrieval import MODULES
from cmer.retrieval.embed import embeddings
from cmer.training.assembly import RunFiles, assemble
from cmer.training.checkpoint import load, load_tensors, save


def embed_run(
    checkpoint: Path, files: RunFiles, queries: Path, template: str, out: Path, run: RunSpec | None = None
) -> None:
    """Encode the test images and the test captions under the label protocols, and write the embeddings.

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
    tensors, record = load(checkpoint)
    spec = validate(RunSpec, record["spec"], str(checkpoint))
    other = changes(spec, run) if run else []
    if other:
        raise UserError(f"{checkpoint} is of another run: its {', '.join(other)}; train this run (cmer train)")
    torch.set_num_threads(spec.training.threads)
    pairs = files.pairs(spec)
    frame = read_frame(queries, QUERIES)
    texts = {name: frame[name].tolist() for name in frame.columns.drop(["caption_id", "image_id"])}
    texts["predicted"] = predicted_queries(template, pairs, texts["none"])
    if spec.options.plain_queries_only:
        texts = {"none": texts["none"]}
    ready = assemble(spec, pairs, files.folder, files.features, unstored=texts.get("predicted", []))
    load_tensors(ready.method.trained(), tensors, checkpoint)
    code = code_digest(*MODULES, *spec.modules())
    record |= {"embedding": {"code": code, "versions": versions(), "device": device().type}}
    precision = spec.training.precision
    save(out, embeddings(ready.method, ready.inputs, pairs.test_images, spec.views, texts, precision), record)
