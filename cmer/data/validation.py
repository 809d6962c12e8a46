"""Choice of the validation images of a prepared dataset."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cmer.data.frames import CAPTIONS, HASHES, IMAGES, read_frame, write_frame
from cmer.data.groups import LINKED, image_groups, kept_together
from cmer.data.leaks import read_parts
from cmer.data.repeats import Repeats, repeats
from cmer.data.splits import validation_ids


def choose_validation(folder: Path, seed: int, out: Path) -> tuple[str, list[Repeats]]:
    """Write the ids of the validation images: the dataset's val split, or else a tenth of its train images.

    Args:
        folder: folder with images.csv, captions.csv and hashes.csv.
        seed: seed of the random selection.
        out: CSV file to write.

    Returns:
        for a tenth of the train images, a sentence on the groups that stay on one side ("" if there are none), and what
        validation repeats of the other train images; for a val split, neither (`cmer prepare` reports the latter).

    Raises:
        UserError: a file is missing or damaged, or there is only one train image.
    """
    images = read_frame(folder / "images.csv", IMAGES)
    drawn = "val" not in set(images["split"])
    groups = _train_groups(folder, images) if drawn else images["image_id"]
    chosen = validation_ids(images, groups, seed)
    write_frame(out, pd.DataFrame({"image_id": chosen}))
    if not drawn:
        return "", []
    linked, together = kept_together(groups, groups.index.to_series().isin(chosen).map({True: "val", False: "train"}))
    sentence = f"{linked.sum():,} train {LINKED}; {together}" if linked.any() else ""
    return sentence, [each for each in repeats(read_parts(folder, out)) if each.split == "val"]


def _train_groups(folder: Path, images: pd.DataFrame) -> pd.Series[int]:
    """The groups of the train images, by image_id."""
    hashed = images.assign(hash=read_frame(folder / "hashes.csv", HASHES)["hash"])
    train = hashed[hashed["split"] == "train"].set_index("image_id")
    captions = read_frame(folder / "captions.csv", CAPTIONS).set_index("image_id")["caption"]
    return image_groups(train, captions[captions.index.isin(train.index)])
