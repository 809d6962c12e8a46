"""The results folder of a config, and names in it that several rules would write."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmer.config.base import ConfigError
from cmer.config.experiment import parse
from cmer.config.folders import SOURCES, is_within, results_folder
from cmer.plan import OWN_TOWERS

ROOT = Path(__file__).parents[1]
CONFIG: dict[str, Any] = {
    "datasets": {"demo": {"source": "demo"}},
    "backbones": {"tiny": {"kind": "tiny"}},
    "runs": {"cmer": {"method": "cmer", "datasets": ["demo"], "backbones": ["tiny"]}},
}


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("results/", "results"),
        ("./results//mine", "results/mine"),
        ("results/x/../y", "results/y"),
        ("$MINE/paper", "/data/mine/paper"),
        ("${MINE}", "/data/mine"),
        ("//data/mine", "/data/mine"),
        ("my results/Übung 2", "my results/Übung 2"),
    ],
)
def test_a_folder_is_expanded_and_normalised(monkeypatch: pytest.MonkeyPatch, given: str, used: str) -> None:
    monkeypatch.setenv("MINE", "/data/mine")
    assert parse(CONFIG | {"results": given}).results == used


def test_an_absolute_path_into_the_project_is_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert results_folder(f"{tmp_path}/results/a") == "results/a"
    with pytest.raises(ValueError, match="contains other files of the project"):
        results_folder(f"{tmp_path}/cmer")


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        *((name, "contains other files of the project") for name in (*SOURCES, "./cmer/data", "/")),
        *((name, "is not a visible folder inside the project") for name in ("", ".", "..", "../x", ".git/x", "a/..")),
        *((f"a{sign}b", "contains other characters") for sign in "{}<>*?[]`\"';|&\\:#!()"),
        *((f"a{sign}b", "text with a control character") for sign in "\n\t\0"),
        ("a$(b)", "contains other characters"),
        ("-x", "begins with -"),
        ("s3://bucket/x", "contains other characters"),
        ("$NO_SUCH_VARIABLE", "environment variable NO_SUCH_VARIABLE is not set"),
        ("x/ ", "has a space"),
        ("x" * 300, "is longer than 200 bytes"),
        ("config.yaml", "is a file"),
        ("README.md/results", "is a file or inside one"),
        ("x/.git/y", "is not a visible folder inside the project"),
        *(
            (name, "contains other files of the project or machine")
            for name in (
                "/etc",
                "/etc/x",
                "/usr/share/x",
                "/proc/1",
                "/sys/x",
                "/dev/null",
                "/boot/x",
                "/bin/x",
                "/lib/x",
                "/tmp",
                "/x",
                "~",
                "~/..",
                "venv/x",
                "tests/x",
                "$EMPTY_BUT_ONE/usr/x",
            )
        ),
        ("$EMPTY/x", "environment variable EMPTY is not set"),
    ],
)
def test_a_folder_that_cannot_hold_results_is_refused(
    monkeypatch: pytest.MonkeyPatch, results: str, reason: str
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("EMPTY_BUT_ONE", "/")
    monkeypatch.setenv("HOME", "/home/of/someone")
    with pytest.raises(ConfigError, match=rf"(?s)^config is not valid:\n  - results: .*{reason}"):
        parse(CONFIG | {"results": results})


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("cmer", "contains other files"),
        ("cmer/data", "contains other files"),
        (".git", "is not a visible folder"),
        (".", "is not a visible folder"),
        ("..", "contains other files"),
        ("../..", "contains other files"),
        ("/etc", "contains other files"),
        ("~", "contains other files"),
        ("link", "broken link"),
        ("nowhere", "broken link"),
        ("/dev/null", "contains other files"),
        ("pipe", "pipe"),
        ("file", "is a file"),
    ],
)
@pytest.mark.parametrize("below", ["", "/x"])
def test_a_link_is_as_usable_as_what_it_leads_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str, reason: str, below: str
) -> None:
    project = tmp_path / "above/project"
    for folder in ("cmer/data", ".git"):
        (project / folder).mkdir(parents=True)
    (project / "file").touch()
    os.mkfifo(project / "pipe")
    (project / "link").symlink_to(Path(target).expanduser())
    monkeypatch.chdir(project)
    if below and target in (".", "..", "../..", "~"):  # a folder of its own beside the project
        assert results_folder("link/x/y") == "link/x/y"
        return
    with pytest.raises(ValueError, match=reason):
        results_folder(f"link{below}")


def test_a_link_to_another_disk_holds_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("project", "disk"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "project")
    Path("results").symlink_to(tmp_path / "disk")
    assert results_folder("results") == "results"
    assert is_within(f"{tmp_path}/disk/x", "results") and not is_within("results/../x", "results")


def test_every_folder_of_the_project_that_git_tracks_is_refused() -> None:
    tracked = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    assert tracked - {"results", "mutants", "dvc_plots"} <= set(SOURCES)


@given(st.text())
def test_any_text_is_a_plain_folder_or_a_sentence(text: str) -> None:
    try:
        found = results_folder(text)
    except ValueError as error:
        assert str(error)
    else:
        assert results_folder(found) == found
        assert not set(found) & set("{}<>*?[]$`\"';|&\\:\n\0") and not found.startswith("-")


@pytest.mark.parametrize(
    ("section", "name", "entry"),
    [
        ("tables", "validation", {"kind": "table1", "runs": ["tiny.cmer"]}),
        ("datasets", "demo.queries", {"source": "demo"}),
        ("datasets", "leaks.csv", {"source": "demo"}),
        ("datasets", "leaks.summary.csv", {"source": "demo"}),
        ("datasets", "leaks.log", {"source": "demo"}),
        ("datasets", "leaks.record.json", {"source": "demo"}),
        ("backbones", OWN_TOWERS, {"kind": "tiny"}),
    ],
)
def test_a_name_that_another_file_has_is_refused(section: str, name: str, entry: dict[str, Any]) -> None:
    config = copy.deepcopy(CONFIG)
    config.setdefault(section, {})[name] = entry
    with pytest.raises(ConfigError, match=rf"{section}\.{name}: other files of the workflow have this name"):
        parse(config)


@pytest.mark.parametrize(
    "dataset",
    [
        {"source": "folder", "title": "Mine", "root": "results/data/mine", "annotations": "captions.csv"},
        {"source": "folder", "title": "Mine", "root": "data", "annotations": "../results/x.csv"},
        {"source": "folder", "title": "Mine", "root": "data", "images": "../results/x"},
        {"source": "folder", "title": "Mine", "root": "data", "labels": {"rule": "lists", "folder": "../results"}},
        {"source": "rsicd", "root": "$PROJECT/results"},
        {"source": "rsicd", "sources": [{"kind": "local", "path": "results/data/rsicd/images.tar"}]},
    ],
)
def test_a_users_files_among_the_results_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dataset: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROJECT", str(tmp_path))
    config = CONFIG | {"datasets": CONFIG["datasets"] | {"mine": dataset}}
    with pytest.raises(ConfigError, match=r"datasets\.mine: .* is inside `results`"):
        parse(config)
    parse(config | {"results": "other"})


def test_weights_among_the_results_are_refused() -> None:
    tower = {"kind": "open_clip", "model": "ViT-B-32", "weights": "results/clip.pt", "quick_gelu": True}
    with pytest.raises(ConfigError, match=r"backbones\.clip: results/clip\.pt is inside `results`"):
        parse(CONFIG | {"backbones": CONFIG["backbones"] | {"clip": tower}})
