import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fetch_cases import Loopback, pass_for_published

from cmer.data.fetch import download


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder to work in: what is downloaded is kept below it."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests make passes for the published dataset."""
    pass_for_published(monkeypatch)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would be waited between attempts; nothing is."""
    seconds: list[float] = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=seconds.append, time=time.time))
    return seconds


@pytest.fixture
def web(waits: list[float]) -> Iterator[Loopback]:
    loopback = Loopback()
    yield loopback
    loopback.stop()
