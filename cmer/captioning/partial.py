"""The unfinished lines of a captioning, which survive an interruption."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cmer.errors import UserError
from cmer.io import atomic, digest, parse_json


class Partial:
    """An append-only file of lines, each after its checksum.

    Opening it drops the damaged tail that an interruption leaves: everything from the first line on that is incomplete,
    changed, or not of the image expected there, and what remains of its batch.

    Args:
        path: the file.
        images: file name and SHA-256 of each image, in order.
        batch_size: images of a batch.

    Attributes:
        lines: the lines of whole batches.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path, images: Sequence[tuple[str, str]], batch_size: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
        self.lines: list[str] = []
        for entry, image in zip(stored, images, strict=False):
            line = _intact(entry, image)
            if line is None:
                break
            self.lines.append(line)
        if len(self.lines) < len(images):  # the same batches give the same texts
            del self.lines[len(self.lines) - len(self.lines) % batch_size :]
        with atomic(path) as temporary:
            temporary.write_bytes(b"".join(map(_entry, self.lines)))

    def append(self, lines: Sequence[str]) -> None:
        """Add the lines of a batch; they are on disk when this returns.

        Raises:
            UserError: they cannot be written.
        """
        try:
            with self.path.open("ab") as file:
                file.write(b"".join(map(_entry, lines)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write captions to {self.path}: {error.strerror}; free space and rerun the same command"
            ) from error
        self.lines += lines


def _entry(line: str) -> bytes:
    return f"{digest(line)} {line}\n".encode()


def _intact(entry: bytes, image: tuple[str, str]) -> str | None:
    """The line of an entry; None if it is damaged or of another image."""
    try:
        checksum, _, line = entry.decode().partition(" ")
        row = parse_json(line, "line") if checksum == digest(line) else {}
        return line if (row.get("file"), row.get("sha256")) == image else None
    except (UnicodeDecodeError, UserError):
        return None
