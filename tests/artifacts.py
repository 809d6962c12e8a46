"""Files as the steps before would write them, for tests of the steps after."""

import numpy as np
import pandas as pd
import torch

from cmer.data.frames import IMAGES, QUERIES, digest_of_test_split, read_frame
from cmer.training.checkpoint import save

DEFAULTS = {"file": "a.png", "label": "", "split": "train", "width": 1, "height": 1, "sha256": "0" * 64}


def images_table(count: int, **columns) -> pd.DataFrame:
    """A valid images.csv of `count` images with these columns; the others have one value for all images."""
    return pd.DataFrame({"image_id": range(count), **(DEFAULTS | columns)})


def write_embeddings(path, tensors: dict[str, np.ndarray], record: dict) -> None:
    """An embeddings file with the record of a training, of the test split in images.csv and queries.csv beside it."""
    tables = [path.parent / name for name in ("images.csv", "queries.csv")]
    made = {}
    if all(table.exists() for table in tables):
        made["test"] = digest_of_test_split(
            *(read_frame(*each) for each in zip(tables, (IMAGES, QUERIES), strict=True))
        )
    save(path, {name: torch.tensor(array) for name, array in tensors.items()}, record | {"embedding": made})
