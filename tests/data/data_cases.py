from collections.abc import Callable
from typing import Any

from cmer.config.datasets import FolderDataset

Options = Callable[..., FolderDataset]


def entry(
    name: str, split: str = "train", captions: tuple[str, ...] = ("a field .", "one field ."), **more: Any
) -> dict[str, Any]:
    """An image's entry in an annotation file."""
    return {"filename": name, "split": split, "sentences": [{"raw": text} for text in captions], **more}
