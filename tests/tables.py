"""Contents of images.csv, for tests that look at some of its columns only."""

import pandas as pd

DEFAULTS = {"file": "a.png", "label": "", "split": "train", "width": 1, "height": 1, "sha256": "0" * 64}


def images_table(count: int, **columns) -> pd.DataFrame:
    """A valid table of `count` images with these columns; the others have one value for all images."""
    return pd.DataFrame({"image_id": range(count), **(DEFAULTS | columns)})
