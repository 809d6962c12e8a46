"""Training of one run, from its spec to its checkpoint. Called by the commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from cmer.config.runs import RunSpec
from cmer.data.pairs import Pairs
from cmer.features.device import device
from cmer.io import digest, write_text
from cmer.methods.layers.ensemble import of_members
from cmer.provenance import code_digest, versions
from cmer.training import MODULES
from cmer.training.assembly import Assembled, RunFiles, assemble
from cmer.training.checkpoint import load_tensors, save
from cmer.training.distributed import rank
from cmer.training.loop import Trainer
from cmer.training.validation import validation_mr

STATES = Path("work/train")
MEMBER_SEED = 1000
"""Difference of the seeds of an ensemble's members."""

Curve = list[dict[str, Any]]


class Trained(NamedTuple):
    """What a training results in.

    Attributes:
        weights: trained tensors of the best epoch.
        curve: one entry per epoch.
        best_epoch: the best epoch; of an ensemble, the latest one of its members.
        val_mr: validation mR in percent of the weights; None if nothing trains.
        images_seen: number of images seen, by all members.
    """

    weights: dict[str, Tensor]
    curve: Curve
    best_epoch: int
    val_mr: float | None
    images_seen: int


def train_run(spec: RunSpec, files: RunFiles, out: Path, curve: Path) -> dict[str, Any]:
    """Train a run, or resume it, and write its checkpoint to `out` and its losses and validation mR to `curve`.

    The members of an ensemble are trained one by one, as runs of their own: member k has the seed of the run plus
    1,000 k, and selects its own best epoch. The curve is then the mean of theirs, and the validation mR that of all
    members together.

    Returns:
        number of images seen and validation mR, for the run-time record.

    Raises:
        UserError: an input does not match the run, the loss is not finite, or the disk is full.
    """
    pairs = files.pairs(spec)
    ready = assemble(spec, pairs, files.folder, files.features, rich=files.rich)
    record = _record(spec, ready)
    states = STATES / _state_digest(spec, record, files)
    if not ready.method.trained():
        found = Trained({}, [], 0, None, 0)
    elif spec.options.copies == 1:
        found = _train(spec, ready, pairs, states / "state.pt")
    else:
        found = _train_members(spec, ready, pairs, files, states)
    trained = {
        "images_seen": found.images_seen,
        "epochs": len(found.curve),
        "best_epoch": found.best_epoch,
        "val_mr": None if found.val_mr is None else round(found.val_mr, 4),
    }
    if rank() == 0:  # only the first process writes
        images, captions = len(pairs.train_images), len(pairs.captions_of(pairs.train_images))
        record |= {"train_images": images, "train_captions": captions, **trained}
        write_text(curve, "".join(json.dumps(entry) + "\n" for entry in found.curve))
        save(out, found.weights, record)
        for state in states.glob("*.pt"):
            state.unlink()
    return {name: trained[name] for name in ("images_seen", "val_mr")}


def _train(spec: RunSpec, ready: Assembled, pairs: Pairs, state_file: Path) -> Trained:
    state = Trainer(ready.method, ready.inputs, pairs, spec, state_file).run()
    return Trained(state.best, state.curve, state.best_epoch, state.best_mr, state.images_seen)


def _train_members(spec: RunSpec, whole: Assembled, pairs: Pairs, files: RunFiles, states: Path) -> Trained:
    """Train the members of an ensemble one by one, and validate them together."""
    found = []
    for number in range(spec.options.copies):
        member = spec.model_copy(
            update={
                "run": f"{spec.run}, member {number + 1} of {spec.options.copies}",
                "options": spec.options.alone(),
                "seed": spec.seed + MEMBER_SEED * number,
            }
        )
        ready = assemble(member, pairs, files.folder, files.features, rich=files.rich)
        found.append(_train(member, ready, pairs, states / f"member{number}.pt"))
    weights = of_members([one.weights for one in found])
    load_tensors(whole.method.trained(), weights, "the ensemble")
    return Trained(
        weights,
        _mean_curve([one.curve for one in found]),
        max(one.best_epoch for one in found),
        validation_mr(whole.method, whole.inputs, pairs, spec),
        sum(one.images_seen for one in found),
    )


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of curves of equal length, epoch by epoch."""
    return [_mean(entries) for entries in zip(*curves, strict=True)]


def _mean(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {name: _mean([value[name] for value in values]) for name in values[0]}
    return values[0] if isinstance(values[0], int) else round(float(np.mean(values)), 6)


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
    """Digest that names the states' folder: a training resumes on the same kind of device or starts anew.

    The number of processes is left out, because resuming with another number is an error, not a new training.
    """
    same = record | {"spec": spec.model_dump(exclude={"training": {"processes"}})}
    return digest([same, *files.hashes()])
