"""The resumable state of a training, in one file that is replaced atomically."""

from __future__ import annotations

import copy
import hashlib
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmer.errors import UserError
from cmer.io import atomic
from cmer.losses.memory import Memory
from cmer.training.checkpoint import load_tensors
from cmer.training.distributed import all_gather, broadcast, process_count, rank


@dataclass
class State:
    """State of a training.

    Attributes:
        trained: trainable parameters and running statistics.
        optimizer: AdamW over the parameters.
        memory: the method's memory of past batches.
        average: exponential moving average of `trained`; None if the run uses none.
        epoch: the current epoch.
        step: number of steps done in the current epoch.
        images_seen: number of images seen in all epochs.
        loss: sums of the current epoch's losses, by name.
        curve: one entry per finished epoch.
        micro_batch: pairs that a process encodes at once, fewer than the run's setting after memory ran out; None: all.
        best: weights of the epoch with the best validation mR, the earliest one in case of a tie.
        best_epoch: number of that epoch, from 1; 0 before the first validation.
        best_mr: its validation mR in percent, unrounded.
    """

    trained: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    memory: Memory | None
    average: dict[str, Tensor] | None = None
    epoch: int = 0
    step: int = 0
    images_seen: int = 0
    loss: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    micro_batch: int | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_mr: float = -math.inf

    _PLAIN = (
        *("average", "epoch", "step", "images_seen", "loss", "curve", "micro_batch"),
        *("best", "best_epoch", "best_mr"),
    )

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, including the random generators of all processes.

        All processes must call this; only the first one writes.
        """
        data = {name: getattr(self, name) for name in self._PLAIN}
        data["trained"] = {name: p.detach() for name, p in self.trained.items()}
        data["optimizer"] = self.optimizer.state_dict()
        data["memory"] = self.memory.state_dict() if self.memory else None
        data["rng"] = all_gather(torch.get_rng_state())
        data["cuda_rng"] = all_gather(torch.cuda.get_rng_state()) if torch.cuda.is_available() else []
        if rank() > 0:
            return
        buffer = io.BytesIO()  # written as bytes, so that a full disk raises OSError
        torch.save(data, buffer)
        with atomic(path) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(buffer.getbuffer()).digest())
            file.write(buffer.getbuffer())

    def load(self, path: Path) -> None:
        """Restore a saved state if there is one; all processes must call this, and only the first one reads.

        Raises:
            UserError: the file is damaged, or was written by another number of processes.
        """
        content = broadcast(path.read_bytes() if rank() == 0 and path.is_file() else b"")
        if not content:
            return
        data = unpacked(content, path)
        if len(data["rng"]) != process_count():
            raise UserError(
                f"training state {path} is of {len(data['rng'])} processes and cannot resume in {process_count()}; "
                "start the same number of processes, or remove the state to start over"
            )
        for name in self._PLAIN:
            setattr(self, name, data[name])
        load_tensors(self.trained, data["trained"], path)
        device = next(iter(self.trained.values())).device
        self.optimizer.load_state_dict(data["optimizer"])
        if self.average is not None:
            self.average = {name: tensor.to(device) for name, tensor in self.average.items()}
        if self.memory:
            self.memory.load_state_dict(data["memory"])
        torch.set_rng_state(data["rng"][rank()])
        if data["cuda_rng"]:
            torch.cuda.set_rng_state(data["cuda_rng"][rank()])

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the weights to validate: the average if there is one, otherwise the current weights."""
        source = self.average or {name: p.detach() for name, p in self.trained.items()}
        return copy.deepcopy({name: tensor.cpu() for name, tensor in source.items()})


def unpacked(content: bytes, path: Path) -> dict[str, Any]:
    """What `State.save` wrote: the SHA-256 of the rest, then the data, in torch's format.

    Raises:
        UserError: the content of the file has changed since.
    """
    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[size:]).digest() != content[:size]:
        raise UserError(f"training state {path} is damaged; remove it to start over")
    data: dict[str, Any] = torch.load(io.BytesIO(content[size:]), weights_only=True, map_location="cpu")
    return data
