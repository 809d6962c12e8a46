"""Version, dependencies, lock and type marker agree with one another."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import cmer

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.txt").read_text()


def name(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement)[0].replace("_", "-").lower()


def test_every_file_gives_the_same_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\d\S*) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest
    assert citation["version"] == PROJECT["version"] == newest[1]
    assert str(citation["date-released"]) == newest[2]


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    titles = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert titles[0] == "Unreleased"


def test_the_lock_holds_everything_that_the_extras_name() -> None:
    extras = [requirement for group in PROJECT["optional-dependencies"].values() for requirement in group]
    for requirement in (*PROJECT["dependencies"], *extras):
        assert f"\n{name(requirement)}==" in LOCK


def test_no_pinned_package_is_of_one_system_without_a_marker() -> None:
    pins = re.findall(r"^((?:nvidia|cuda|triton)[\w-]*==\S+)(.*) \\$", LOCK, re.M)
    assert pins
    assert [pin for pin, marker in pins if "sys_platform == 'linux'" not in marker] == []


def test_no_host_is_in_the_lock() -> None:
    assert not re.search(r"://|--(extra-)?index-url [^-]|--find-links", LOCK.split("\n", 2)[2])


@pytest.mark.parametrize("extra", list(PROJECT["optional-dependencies"]))
def test_the_command_line_starts_without_an_extra(extra: str) -> None:
    modules = {name(requirement).replace("-", "_") for requirement in PROJECT["optional-dependencies"][extra]}
    code = (
        f"import sys; sys.modules |= dict.fromkeys({sorted(modules)}); sys.argv = ['cmer', '--help']; "
        "from cmer.cli.main import main; main()"
    )
    assert "Usage: " in subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_package_is_typed() -> None:
    assert (Path(cmer.__file__).parent / "py.typed").is_file()


def test_the_configs_are_all_listed_in_their_readme() -> None:
    listed = re.findall(r"^\| `([\w.]+)` \|", (ROOT / "config/README.md").read_text(), re.M)
    assert listed == sorted(path.name for path in (ROOT / "config").glob("*.yaml"))
