"""Which images validate: the dataset's own, or a tenth of the train images drawn with the run's seed."""

from __future__ import annotations

import numpy as np
import pandas as pd


def validation_ids(images: pd.DataFrame, seed: int) -> list[int]:
    """Ids of the validation images, ascending; no test image is ever among them.

    Where the dataset has a val split it is that, whatever the seed. Else 10 % of the train images, rounded up (as
    HVSA, Zhang et al., TGRS 2023, re-splits RSITMD's 4,291 for each seed: 3,861 stay).

    Args:
        images: the rows of images.csv.
        seed: of the draw.
    """
    own = images.loc[images["split"] == "val", "image_id"]
    if len(own):
        return sorted(own.tolist())
    train = images.loc[images["split"] == "train", "image_id"].to_numpy()
    count = -(-len(train) // 10)
    drawn = np.random.default_rng(seed).permutation(train)[:count]
    return sorted(drawn.tolist())
