import hashlib
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cmer.errors import UserError
from cmer.io import (
    atomic,
    digest,
    expand,
    locked,
    parse_json,
    read_json,
    read_sealed,
    read_text,
    require_replaceable,
    sha256,
    write_json,
    write_text,
)
from cmer.provenance import recorded


def test_atomic_keeps_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_gives_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/inner"):
        write_text(tmp_path / "file" / "inner", "text")


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    code = "import os, sys; from cmer.io import atomic\nwith atomic(sys.argv[1]): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic(path) as mine:
        mine.write_text("one")
        write_text(path, "another")  # a writer that lives keeps its temporary file
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_json_comes_back(tmp_path: Path) -> None:
    data = {"b": [1, 2.5, None], "a": "é"}
    write_json(tmp_path / "x.json", data)
    assert read_json(tmp_path / "x.json") == data
    assert list(json.loads((tmp_path / "x.json").read_text())) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "does not exist"), (b"{", "not valid JSON"), (b"\xff", "line 1")]
)
def test_unreadable_json_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.json.*{message}"):
        read_json(path)


@pytest.mark.parametrize("place", ["folder", "pipe", "/dev/zero"])
def test_only_regular_files_are_read_and_replaced(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for use in (read_text, lambda path: write_text(path, "text")):
        with pytest.raises(UserError, match=r"is a (folder|pipe|device)"):
            use(tmp_path / place)
    assert not Path("/dev/zero").is_file() and not (tmp_path / "pipe").is_file()


def test_a_file_of_proc_is_read_as_empty(tmp_path: Path) -> None:
    """As its size says: some of them never end."""
    assert read_text("/proc/self/environ") == ""


def test_a_file_too_large_to_be_text_is_named(tmp_path: Path) -> None:
    with (tmp_path / "sparse.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"sparse\.json has 1024\.0 GiB; at most 2 GiB"):
        read_json(tmp_path / "sparse.json")


@pytest.mark.parametrize(
    "path", ["~nobody-at-all/data", "$NO_SUCH_VARIABLE/data", "$EMPTY/data", "x${EMPTY}", "${a-b}", "${unclosed"]
)
def test_a_path_that_cannot_be_expanded_is_a_sentence(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(UserError, match=r"is unknown|is not set"):
        expand(path)


def test_digests() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert sha256(__file__) == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def test_record_holds_the_circumstances(tmp_path: Path) -> None:
    with recorded(tmp_path / "record.json") as facts:
        facts["images"] = 3
    record = read_json(tmp_path / "record.json")
    assert record["images"] == 3
    assert {"command", "commit", "host", "started", "seconds", "peak_memory_mib", "versions"} <= set(record)


@pytest.mark.parametrize("program", ["/home/me/.venv/bin/cmer", "/home/me/cmer/__main__.py"])
def test_record_names_the_program_and_no_folder_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr("sys.argv", [program, "draw", "--folder", "results"])
    with recorded(tmp_path / "record.json"):
        pass
    assert read_json(tmp_path / "record.json")["command"] == ["cmer", "draw", "--folder", "results"]


def _append(path: Path) -> None:
    with locked(path.with_suffix(".lock")):
        before = path.read_text()
        time.sleep(0.1)
        path.write_text(before + "x")


def test_lock_keeps_processes_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    processes = [multiprocessing.get_context("fork").Process(target=_append, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert path.read_text() == "xxxx"


def test_a_name_as_long_as_the_system_allows_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 250), "a")
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 250]
    with pytest.raises(UserError, match="File name too long; choose a shorter name"):
        write_text(tmp_path / ("x" * 300), "a")


@pytest.mark.parametrize("name", ["99999999999999999999.x", "5x.x"])
def test_files_that_no_writer_left_stay(tmp_path: Path, name: str) -> None:
    other = tmp_path / f".file.txt.{platform.node()}.{name}"
    other.touch()
    write_text(tmp_path / "file.txt", "text")
    assert other.exists()


@pytest.mark.parametrize("text", [r'"\ud800"', r'{"a": ["\uDFFF b"]}', r'{"\udc00": 1}'])
def test_half_a_character_is_named(text: str) -> None:
    with pytest.raises(UserError, match=r"given contains half of a surrogate pair \(\\ud"):
        parse_json(text, "given")


def test_whole_characters_are_read_from_escapes() -> None:
    assert [parse_json(text, "given") for text in (r'"\ud83d\ude00"', r'"\\ud800"')] == ["😀", r"\ud800"]


def test_a_sealed_file_that_is_missing_is_named_with_its_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json does not exist; `cmer caption` writes it"):
        read_sealed(tmp_path / "a.json", "cmer caption")


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(str(path)) or mode != os.W_OK | os.X_OK)
    with pytest.raises(UserError, match=r"cannot write .*new/x: Permission denied; change its permissions or choose"):
        require_replaceable(tmp_path / "new/x")
    assert asked == [str(tmp_path)]


POOL = """
import os, sys, time
from cmer.io import process_pool
with process_pool() as pool:
    print(*set(pool.map(pid, range(8), chunksize=1)), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_processes_of_a_pool_end_with_a_killed_parent() -> None:
    code = "def pid(_):\n    import os, time\n    time.sleep(0.01)\n    return os.getpid()\n" + POOL
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert found.stdout.split() and found.returncode == -9  # all ends of the pipes are closed: none is left


INTERRUPTED = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in children of a shell's background job
from cmer.io import process_pool
with process_pool() as pool:
    for _ in pool.map(time.sleep, [0.02] * 20_000, chunksize=4):
        print("ready", flush=True)
"""


@pytest.mark.parametrize("gap", [0.05, 0.2])
def test_a_pool_ends_at_once_even_if_interrupted_twice(gap: float) -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        try:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(gap)
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=30)  # closed only if no worker is left either
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_machine_without_git_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with recorded(tmp_path / "record.json"):
        pass
    assert read_json(tmp_path / "record.json")["commit"] == "unknown"
