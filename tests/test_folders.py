"""The results folder of a config, and names in it that several rules would write."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmer.config.base import ConfigError
from cmer.config.experiment import parse
from cmer.config.folders import SOURCES, results_folder
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
    ],
)
def test_a_folder_that_cannot_hold_results_is_refused(
    monkeypatch: pytest.MonkeyPatch, results: str, reason: str
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=rf"(?s)^config is not valid:\n  - results: .*{reason}"):
        parse(CONFIG | {"results": results})


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
