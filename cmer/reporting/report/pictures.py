"""Small pictures of images, for a page that contains them."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pandas as pd
from PIL import Image

from cmer.config.datasets import Dataset
from cmer.data.frames import IMAGES, read_frame
from cmer.data.images import ImageStore, open_images
from cmer.data.urls import data_url
from cmer.errors import UserError

SIDE = 96
"""Side of a picture, pixels."""
QUALITY = 70


@dataclass
class Pictures:
    """The test images of a dataset as pictures, each made once, when it is first asked for.

    Attributes:
        images: rows of images.csv of the test split, by image id.
        made: data URL of each picture, by key.
    """

    dataset: str
    images: pd.DataFrame
    store: ImageStore
    made: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, dataset: str, options: Dataset, folder: Path) -> Pictures:
        """Open a prepared dataset.

        Raises:
            UserError: a file is missing or damaged.
        """
        images = read_frame(folder / "images.csv", IMAGES)
        return cls(dataset, images[images["split"] == "test"].set_index("image_id"), open_images(options, folder))

    def key(self, image: int) -> str:
        """Make the picture of a test image, and return its key in `made`.

        Raises:
            UserError: there is no such test image, or it has changed since the dataset was prepared.
        """
        key = f"{self.dataset}/{image}"
        if key not in self.made:
            file = BytesIO()
            self.square(image, SIDE).save(file, "WEBP", quality=QUALITY)
            self.made[key] = data_url(file.getvalue(), "image/webp")
        return key

    def square(self, image: int, pixels: int) -> Image.Image:
        """The central square of a test image, `pixels` wide.

        Raises:
            UserError: as `key`.
        """
        if image not in self.images.index:
            raise UserError(f"{self.dataset} has no test image {image}, which queries name; run `cmer evaluate`")
        picture = self.store.load(self.images["file"][image], self.images["sha256"][image])
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        return square.resize((pixels, pixels), Image.Resampling.LANCZOS)
