from pathlib import Path

import pytest
from archive_cases import Colours, squares

from cmer.archive.index import index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve squares in the folders red, green and blue."""
    return squares(tmp_path / "images")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "archive.lance"


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of twelve squares, to be read only."""
    folder = tmp_path_factory.mktemp("indexed")
    index(squares(folder / "images"), folder / "archive.lance", Colours(), "colours")
    return folder / "archive.lance"
