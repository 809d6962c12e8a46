import json
from pathlib import Path
from typing import Any

import pytest
from data_cases import Options
from PIL import Image

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
                Image.new("RGB", (8 + number, 6), (number, 9, 9)).save(path)
        (root / "dataset.json").write_text(json.dumps({"images": entries}))
        return FolderDataset(source="folder", title="Fields", root=str(root), **settings)

    return write
