"""Files of all commands: what would be overwritten, or never ends, is refused before a command does anything."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from cmer.cli.files import Reads, Writes
from cmer.cli.main import app
from cmer.errors import UserError

COMMANDS = {command.callback.__name__: command.callback for command in app.registered_commands if command.callback}


def roles(command: str) -> list[tuple[str, Reads]]:
    """Parameters of a command that are files, and how they are marked; one may be both read and written."""
    hints = get_type_hints(COMMANDS[command], include_extras=True)
    return [
        (name, role)
        for name, hint in hints.items()
        for role in getattr(hint, "__metadata__", ())
        if isinstance(role, Reads)
    ]


CLASHES = [
    (command, written, taken, name, other)
    for command in COMMANDS
    for written, writes in roles(command)
    if isinstance(writes, Writes)
    for taken, role in roles(command)
    if taken != written
    for name in writes.names
    for other in role.names
    if name == "" or other == ""
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_path_is_marked(command: str) -> None:
    hints = get_type_hints(COMMANDS[command], include_extras=True)
    paths = {name for name, hint in hints.items() if "Path" in str(hint) or name == "store"}  # a path or a URL
    assert paths == {name for name, _ in roles(command)}


@pytest.mark.parametrize(("command", "written", "taken", "name", "other"), CLASHES)
def test_no_output_overwrites_an_input_or_another_output(
    tmp_path: Path, command: str, written: str, taken: str, name: str, other: str
) -> None:
    """Under each name that the files beside or inside a parameter have."""
    given: dict[str, Any] = {parameter: tmp_path / parameter / "x.file" for parameter, _ in roles(command)}
    if other == "":
        (file,) = Writes((name,)).files(given[written])
        given[taken] = file
    else:
        (file,) = Reads((other,)).files(given[taken])
        given[written] = file
    hints = get_type_hints(COMMANDS[command])
    given |= {parameter: [given[parameter]] for parameter in given if "list" in str(hints[parameter])}
    with pytest.raises(UserError) as error:
        COMMANDS[command](**given, spec="null")
    assert f" would overwrite {file}, a file of --" in str(error.value)
    assert str(error.value).startswith((f"--{written} ", f"--{taken} "))


def test_links_do_not_hide_a_file(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("caption\n")
    (tmp_path / "link.csv").symlink_to("captions.csv")
    with pytest.raises(UserError, match="--out would overwrite"):
        COMMANDS["augment"](spec="{}", folder=tmp_path, out=tmp_path / "link.csv", queries=Path("q.csv"), record=None)


@pytest.mark.parametrize(
    "spec",
    [
        {"source": "folder", "root": "{folder}", "annotations": "mine.csv"},
        {"backbone": {"kind": "open_clip", "weights": "$FOLDER/mine.csv"}},
        {"sources": [{"kind": "local", "path": "{folder}/mine.csv"}]},
    ],
)
def test_a_file_that_the_spec_names_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]
) -> None:
    (tmp_path / "mine.csv").write_text("file,caption\n")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    text = json.dumps(spec).replace("{folder}", str(tmp_path))
    with pytest.raises(UserError, match=r"--record would overwrite .*mine\.csv, a file of the spec"):
        COMMANDS["prepare"](spec=text, folder=tmp_path / "out", record=tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["show", "pipe.csv"], "pipe.csv is a pipe, not a regular file"),
        (["show", "/dev/zero"], "/dev/zero is a device or socket"),
        (["record", "."], "is a folder, not a regular file"),
        (["validation", "--checkpoint", "/dev/zero", "--out", "v.csv"], "/dev/zero is a device or socket"),
        (["schema", "--out", "/dev/null"], "cannot write /dev/null: it is a device or socket"),
        (["schema", "--out", "folder"], "cannot write folder: it is a folder"),
        (["schema", "--out", "pipe.csv"], "cannot write pipe.csv: it is a pipe"),
    ],
)
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path, command: list[str], message: str) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "cmer", *command], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_a_file_is_given_once(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"x")
    (tmp_path / "link.safetensors").symlink_to("a.safetensors")
    given = [tmp_path / "a.safetensors", tmp_path / "link.safetensors"]
    with pytest.raises(UserError, match=r"--checkpoint names .*link\.safetensors twice"):
        COMMANDS["validation"](checkpoint=given, out=tmp_path / "v.csv", record=None)


@pytest.mark.parametrize("role", ["input", "output", "spec"])
def test_a_link_that_leads_to_itself_is_no_traceback(tmp_path: Path, role: str) -> None:
    loop = tmp_path / "loop.csv"
    loop.symlink_to("loop.csv")
    if role == "input":
        with pytest.raises(UserError, match="cannot be read: Too many levels"):
            COMMANDS["show"](file=loop, printed=False)
    elif role == "output":
        COMMANDS["schema"](out=loop)
        assert json.loads(loop.read_text())
    else:
        with pytest.raises(UserError, match=r"images\.csv does not exist"):
            COMMANDS["augment"](spec=json.dumps({"x": str(loop)}), folder=tmp_path, out=tmp_path / "o.csv",
                                queries=tmp_path / "q.csv", record=None)  # fmt: skip


def test_texts_of_a_spec_are_looked_up_once_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And text that is too long for a path is no error."""
    asked = []
    isfile = os.path.isfile
    monkeypatch.setattr("os.path.isfile", lambda path: asked.append(path) or isfile(path))
    spec = json.dumps([{"root": f"r{number}", "text": "x" * 300} for number in range(200)])
    with pytest.raises(UserError, match=r"images\.csv does not exist"):
        COMMANDS["augment"](spec=spec, folder=tmp_path, out=tmp_path / "o.csv", queries=tmp_path / "q", record=None)
    assert 200 < len(asked) <= 4 * 200
