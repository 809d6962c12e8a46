"""Committed results were made by committed code, and name no folder of the machine that made them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMIT = rb'"commit": *"([^"]*)"'
MACHINE_PATH = rb"(?<![^\s\"'=,;:(])/(?:work|home|tmp|root)\b"


@pytest.fixture(scope="module", params=["docs/measured", "published"])
def committed(request: pytest.FixtureRequest) -> dict[str, bytes]:
    """Content of the committed files of a folder: JSON, JSON lines, CSV, images and archives."""
    files = [path for path in (ROOT / request.param).rglob("*") if path.is_file()]
    return {str(path.relative_to(ROOT)): path.read_bytes() for path in files}


def test_every_committed_record_is_of_a_clean_commit(committed: dict[str, bytes]) -> None:
    commits = {name: re.findall(COMMIT, data) for name, data in committed.items()}
    assert any(commits.values())
    assert sorted(name for name, found in commits.items() if any(c.endswith(b"-dirty") for c in found)) == []


def test_no_committed_result_has_a_path_of_a_machine(committed: dict[str, bytes]) -> None:
    assert sorted(name for name, data in committed.items() if re.search(MACHINE_PATH, data)) == []
