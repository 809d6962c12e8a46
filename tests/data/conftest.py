import json
from pathlib import Path
from typing import Any

import pytest
from data_cases import Options
from raster_cases import picture

from cmer.config.datasets import FolderDataset


@pytest.fixture
def published(tmp_path: Path) -> Options:
    """Write a published dataset of these entries, with a small image each, and give its settings."""

    def write(*entries: Any, **settings: Any) -> FolderDataset:
        root = tmp_path / "root"
        (root / "images").mkdir(parents=True, exist_ok=True)
        for number, item in enumerate(entries):
            path = root / "images" / item["filename"]
            if path.resolve().is_relative_to(root):
                picture(path, (number, 9, 9), 8 + number, 6)
        (root / "dataset.json").write_text(json.dumps({"images": entries}))
        return FolderDataset(source="folder", title="Fields", root=str(root), **settings)

    return write
