"""Files: atomic writes, readable errors, content hashes, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import math
import multiprocessing
import os
import platform
import re
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cmer.errors import UserError

written: list[Path] = []
"""Files that this process wrote, for its record."""
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free disk space or choose another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions or choose another folder"),
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""What to do where a file cannot be written or read, by the system's error."""
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
LARGEST_TEXT = 2**31
"""Maximum size in bytes of a file that is read into memory at once as text."""


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    The data is on disk before the rename, so a crash leaves the complete old or the complete new file. Temporary files
    that killed processes of this machine left beside `path` are removed.

    Raises:
        UserError: the disk is full, the folder cannot be written, or `path` is a folder, pipe or device; what was there
            is untouched.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        require_replaceable(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        prefix = f"{_prefix(target)}{os.getpid()}."
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        written.append(target)
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "choose another folder")
        raise UserError(f"cannot write {target}: {error.strerror or error}; {remedy}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _prefix(target: Path) -> str:
    return f".{target.name[:40]}.{platform.node()}."  # short, as a file name has at most 255 bytes


def _remove_stale(target: Path) -> None:
    for path in target.parent.glob(f"{glob.escape(_prefix(target))}[0-9]*"):
        writer = path.name.removeprefix(_prefix(target)).partition(".")[0]
        try:
            os.kill(int(writer), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (PermissionError, OverflowError, ValueError):  # another user's process, which lives, or another file
            continue


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, data: Any) -> None:
    """Write `data` to `path` atomically, as JSON with sorted keys."""
    write_text(path, _json(data))


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def expand(path: str) -> Path:
    """`path` with `~` and environment variables expanded.

    Raises:
        UserError: a variable is not set or empty, or a user unknown.
    """
    for found in re.findall(r"(?a)\$(\w+|\{[^}]*\}?)", path):
        name = found.strip("{}")
        if not os.environ.get(name):  # empty: $DATA/x would be /x
            raise UserError(f"environment variable {name} is not set; set it for {path}: export {name}=<folder>")
    try:
        return Path(os.path.expandvars(path)).expanduser()
    except RuntimeError:
        raise UserError(f"the home folder in {path} is unknown; write the path without ~") from None


def regular_size(path: Path | str) -> int:
    """Size in bytes of a file that can be read to its end.

    Raises:
        UserError: the file is missing or cannot be accessed, or is a folder, or a pipe or device, whose reading may
            never end.
    """
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise UserError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', error)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is {_kind(status.st_mode)}, not a regular file")
    return status.st_size


def resolved(path: Path | str) -> Path:
    """The absolute path without links; a link that leads to itself stays as it is, for the reader to report."""
    return Path(os.path.realpath(path))


def require_replaceable(path: Path) -> None:
    """Raise `UserError` if a file cannot be renamed to `path`.

    It is a folder, pipe or device, or this user may not write to its folder.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 (Path's raise without permission)
        raise UserError(f"cannot write {path}: it is {_kind(path.stat().st_mode)}; choose the name of a file")
    folder = next(above for above in path.absolute().parents if os.path.lexists(above))
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path}: {os.strerror(errno.EACCES)}; {REMEDIES[errno.EACCES]}")


def _kind(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"


def read_bytes(path: Path | str, size: int) -> bytes:
    """The first `size` bytes in `path`: files of /proc claim to be empty, and may never end."""
    with Path(path).open("rb") as file:
        return file.read(size)


def read_text(path: Path | str) -> str:
    """The text in `path`: UTF-8, with or without a byte order mark.

    Raises:
        UserError: the file is missing, cannot be read, is larger than `LARGEST_TEXT`, is not a regular file, or is not
            UTF-8; the line is named.
    """
    size = regular_size(path)
    if size > LARGEST_TEXT:
        raise UserError(f"{path} has {size / 2**30:.1f} GiB; at most {LARGEST_TEXT // 2**30} GiB of text are read")
    try:
        return read_bytes(path, size).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise UserError(f"{path} is not UTF-8 text: byte 0x{byte:02x} in line {line}; save it as UTF-8") from None


def parse_json(text: str, what: str, halves: bool = False) -> Any:
    """The value of JSON text; `what` names it in errors, `halves` allows half of a surrogate pair.

    Raises:
        UserError: it is not JSON, is nested too deeply, repeats a key in an object, or contains NaN, infinity or half
            of a surrogate pair.
    """
    try:
        found = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_number, parse_float=_number)
        if not halves and _ESCAPED_HALF.search(text):  # the only way to have half a character in a text
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError as error:
        half = f"half of a surrogate pair (\\u{ord(error.object[error.start]):04x})"
        raise UserError(f"{what} contains {half}, which no file can hold; remove it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} is not valid JSON: {error}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)[:100]!r} appears twice in one object")
    return found


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999 is infinity
        raise ValueError(f"{text[:100]} is not a finite number")
    return number


def read_json(path: Path | str, halves: bool = False) -> Any:
    """The JSON in `path`; see `parse_json` for `halves`.

    Raises:
        UserError: see `read_text` and `parse_json`.
    """
    return parse_json(read_text(path), str(path), halves)


def sealed(data: dict[str, Any], command: str) -> str:
    """`data` as JSON with the command that makes it and a checksum, both of which `unsealed` compares."""
    content = json.loads(json.dumps(data | {"written_by": command}, allow_nan=False))
    return _json(content | {"checksum": digest(content)})


def write_sealed(path: Path | str, data: dict[str, Any], command: str) -> None:
    """Write `data` as `sealed` JSON."""
    write_text(path, sealed(data, command))


def unsealed(data: Any, what: str, command: str) -> dict[str, Any]:
    """The data that `sealed` was given; `what` names it in errors.

    Raises:
        UserError: it is malformed, was written by another command, or has changed since.
    """
    if not isinstance(data, dict) or data.pop("written_by", None) != command or "checksum" not in data:
        raise UserError(f"{what} was not written by `{command}`; give a file that it wrote, or run it")
    checksum = data.pop("checksum")
    if checksum != digest(data | {"written_by": command}):
        raise UserError(f"{what} is damaged or was edited: its checksum differs; run `{command}` again")
    return data


def read_sealed(path: Path | str, command: str) -> dict[str, Any]:
    """The data that `write_sealed` wrote.

    Raises:
        UserError: the file is missing; see also `unsealed`.
    """
    if not os.path.lexists(path):
        raise UserError(f"{path} does not exist; `{command}` writes it")
    return unsealed(read_json(path), str(path), command)


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def process_pool() -> Iterator[ProcessPoolExecutor]:
    """A pool of one process per core.

    If the block fails or is interrupted, the processes are killed instead of finishing their tasks. They end with this
    process even if it is killed, which a pool's do not by themselves.
    """
    others, pool = set(multiprocessing.active_children()), ProcessPoolExecutor(cores(), initializer=_begin)
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is sent to all processes, but the parent ends these
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def sha256(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(data: Any) -> str:
    """Hex SHA-256 (32 characters) of `data` as canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:32]


@contextlib.contextmanager
def locked(path: Path | str, busy: str = "") -> Iterator[None]:
    """Hold an exclusive lock named `path` between processes while the block runs.

    Args:
        path: file of the lock.
        busy: message of the error if another process holds the lock; empty: wait for it.

    Raises:
        UserError: another process holds the lock.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(path), timeout=0 if busy else -1)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(busy) from None
    try:
        yield
    finally:
        lock.release()
