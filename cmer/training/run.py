"""Training of one run, from its spec to its checkpoint. Called by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cmer.config.runs import RunSpec
from cmer.features.device import device
from cmer.io import digest, write_text
from cmer.provenance import code_digest, versions
from cmer.training import MODULES
from cmer.training.assembly import Assembled, RunFiles, assemble
from cmer.training.checkpoint import save
from cmer.training.distributed import rank
from cmer.training.loop import Trainer

STATES = Path("work/train")


def train_run(spec: RunSpec, files: RunFiles, out: Path, curve: Path) -> dict[str, Any]:
    """Train a run, or resume it, and write its checkpoint to `out` and its losses and validation mR to `curve`.

    Returns:
        number of images seen and validation mR, for the run-time record.

    Raises:
        UserError: an input does not match the run, the loss is not finite, or the disk is full.
    """
    pairs = files.pairs(spec)
    ready = assemble(spec, pairs, files.folder, files.features, rich=files.rich)
    record = _record(spec, ready)
    state_file = STATES / _state_digest(spec, record, files) / "state.pt"
    state = Trainer(ready.method, ready.inputs, pairs, spec, state_file).run() if ready.method.trained() else None
    trained = {
        "images_seen": state.images_seen if state else 0,
        "epochs": len(state.curve) if state else 0,
        "best_epoch": state.best_epoch if state else 0,
        "val_mr": round(state.best_mr, 4) if state else None,
    }
    if rank() == 0:  # only the first process writes
        images, captions = len(pairs.train_images), len(pairs.captions_of(pairs.train_images))
        record |= {"train_images": images, "train_captions": captions, **trained}
        write_text(curve, "".join(json.dumps(entry) + "\n" for entry in (state.curve if state else [])))
        save(out, state.best if state else {}, record)
        state_file.unlink(missing_ok=True)
    return {name: trained[name] for name in ("images_seen", "val_mr")}


def _record(spec: RunSpec, ready: Assembled) -> dict[str, Any]:
    return {
        "spec": spec.model_dump(),
        "trainable_parameters": ready.method.count(),
        "features": ready.digest,
        "code": code_digest(*MODULES, *spec.modules()),
        "versions": versions(),
        "threads": spec.training.threads,
        "device": device().type,
    }


def _state_digest(spec: RunSpec, record: dict[str, Any], files: RunFiles) -> str:
    """Digest that names the state's folder: a training resumes on the same kind of device or starts anew.

    The number of processes is left out, because resuming with another number is an error, not a new training.
    """
    same = record | {"spec": spec.model_dump(exclude={"training": {"processes"}})}
    return digest([same, *files.hashes()])
