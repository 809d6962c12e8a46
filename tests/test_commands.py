"""Command lines of the workflow's steps: folders, interpreters and arguments of any kind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmer import commands
from cmer.commands import LONGEST, check_project, shell_prefix, spec_argument, spelled_out
from cmer.errors import UserError


@pytest.mark.parametrize("sign", '"$`\\')
def test_a_project_whose_path_a_shell_may_interpret_is_refused(sign: str) -> None:
    with pytest.raises(UserError, match=r"the path of the project, .* contains .*; move or rename the folder"):
        check_project(Path(f"/home/x{sign}(touch pwned)/cmer"))


@pytest.mark.parametrize("name", ["with space", "it's", "a;b", "br{ace}s", "ünï", "a&b", "#", "~", "(x)", "*", "-x"])
def test_other_projects_are_not_refused(name: str) -> None:
    check_project(Path("/home", name))


@pytest.mark.parametrize(
    "folder", ["x$(touch pwned)", "b`touch pwned`", 'q"uote', "it's", "{brace} {{s}}", "a; b", "a\\b"]
)
def test_the_interpreter_may_be_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Snakemake formats the prefix; what is left runs the stand-in with the arguments as they are."""
    python = tmp_path / folder / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    prefix = shell_prefix().format()
    script = f"{prefix} cmer train 'a b' '$HOME'; torchrun --nproc-per-node 2 -m cmer"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "-P|-m|cmer|train|a b|$HOME|-P|-m|torch.distributed.run|--nproc-per-node|2|-m|cmer|"
    assert [path.name for path in tmp_path.iterdir()] == [folder]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_long_spec_travels_in_a_file_named_after_its_content(folder: Path) -> None:
    short, long = json.dumps("x" * 10), json.dumps("é" * LONGEST, ensure_ascii=False)
    assert spec_argument(short) == short
    assert not (folder / commands.SPECS).exists()
    argument = spec_argument(long)
    assert argument.startswith("@work/specs/") and len(argument) < 100
    assert spec_argument(long) == argument != spec_argument(long.replace("é", "e"))
    words = ["cmer", "table", "--spec", argument, "--out", "@x"]
    assert spelled_out(words) == ["cmer", "table", "--spec", long, "--out", "@x"]
    assert spelled_out(["--rerank", argument, "--grid", "@x"]) == ["--rerank", long, "--grid", "@x"]


def test_a_damaged_file_of_a_spec_is_written_again(folder: Path) -> None:
    long = json.dumps("x" * LONGEST)
    path = folder / spec_argument(long).removeprefix("@")
    path.write_text("damaged")
    assert spelled_out(["--spec", spec_argument(long)])[1] == long


@given(st.lists(st.text().filter(lambda word: not word.startswith("@"))))
def test_other_words_stay_as_they_are(words: list[str]) -> None:
    assert spelled_out(words) == words
    assert spelled_out([]) == []
