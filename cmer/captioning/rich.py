"""Rich-text datasets: one JSON line per image, in the order of images.csv, and beside it a record with the checksum."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmer.captioning.base import RichText
from cmer.data.pairs import Ints
from cmer.errors import UserError
from cmer.io import parse_json, read_sealed, read_text, sha256, write_sealed, write_text

COMMAND = "cmer caption"


def encode(file: str, digest: str, texts: RichText) -> str:
    """The line of an image, without its end."""
    captions = {granularity: list(given) for granularity, given in texts.items()}
    return json.dumps({"file": file, "sha256": digest, "captions": captions}, ensure_ascii=False)


def write_rich(path: Path, lines: Sequence[str], record: Mapping[str, Any]) -> None:
    """Write the lines of all images, and their record as `path` with the suffix .json; each atomically."""
    write_text(path, "".join(f"{line}\n" for line in lines))
    write_sealed(path.with_suffix(".json"), {**record, "images": len(lines), "sha256": sha256(path)}, COMMAND)


@dataclass(frozen=True)
class RichQueries:
    """Rich texts as queries.

    Attributes:
        texts: the queries, image by image.
        owners: position of each query's image among the test images.
        repeated_elsewhere: number of queries whose exact text is in the gallery entry of another image.
    """

    texts: list[str]
    owners: Ints
    repeated_elsewhere: int

    @classmethod
    def of(cls, texts: list[str], owners: Ints, gallery: Sequence[Sequence[str]]) -> RichQueries:
        """The queries, compared with the gallery's texts of each image."""
        images: dict[str, set[int]] = {}
        for image, entry in enumerate(gallery):
            for text in entry:
                images.setdefault(text, set()).add(image)
        elsewhere = [images.get(text, set()) - {owner} for text, owner in zip(texts, owners.tolist(), strict=True)]
        return cls(texts, owners, sum(map(bool, elsewhere)))

    def counts(self) -> dict[str, int]:
        """What the record of the embeddings says of the queries."""
        return {"queries": len(self.texts), "repeated_elsewhere": self.repeated_elsewhere}


@dataclass(frozen=True)
class RichTexts:
    """Rich texts of the images of a dataset.

    Attributes:
        path: the file, for messages.
        images: texts by granularity of each image, by image id.
        digest: SHA-256 of the file.
    """

    path: Path
    images: list[RichText]
    digest: str

    @classmethod
    def read(cls, path: Path, files: Sequence[str], hashes: Sequence[str]) -> RichTexts:
        """Read what `cmer caption` wrote for a dataset.

        Args:
            path: the JSONL file; its record lies beside it.
            files: file name of each image, by image id.
            hashes: SHA-256 of each image.

        Raises:
            UserError: a file is missing or damaged, or describes other images.
        """
        record = read_sealed(path.with_suffix(".json"), COMMAND)
        lines = read_text(path).split("\n")[:-1]  # other line ends are part of file names
        if sha256(path) != record["sha256"]:
            raise UserError(f"{path} is damaged or was edited: its checksum differs; run `{COMMAND}` again")
        rows = [parse_json(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1)]
        if [(row["file"], row["sha256"]) for row in rows] != list(zip(files, hashes, strict=True)):
            raise UserError(f"{path} describes other images than images.csv; run `{COMMAND}` again")
        return cls(path, [row["captions"] for row in rows], record["sha256"])

    def split(self, images: Ints, query: str | None) -> tuple[list[list[str]], RichQueries | None]:
        """What represents each of these images, and the queries, if a granularity has been set aside for them.

        Args:
            images: ids of the images.
            query: granularity whose texts are queries. They are left out of the gallery, as is any equal text of the
                same image. None: everything is in the gallery.

        Returns:
            the texts of each image, each once, in the order of the file; and the queries, or None.

        Raises:
            UserError: an image has no text of this granularity, or no other text.
        """
        gallery = [self._entry(int(image), query) for image in images]
        if query is None:
            return gallery, None
        asked = [self.images[image][query] for image in images]
        owners = np.repeat(np.arange(len(images)), [len(texts) for texts in asked])
        return gallery, RichQueries.of([text for texts in asked for text in texts], owners, gallery)

    def _entry(self, image: int, query: str | None) -> list[str]:
        texts = self.images[image]
        if query is not None and not texts.get(query):
            raise UserError(f"{self.path}: image {image} has no text {query!r} for a query; it has {', '.join(texts)}")
        left_out = set(texts[query]) if query else set()
        kept = dict.fromkeys(text for given in texts.values() for text in given if text not in left_out)
        if not kept:
            raise UserError(
                f"{self.path}: image {image} has only texts {query!r}, which are its queries, and no others"
            )
        return list(kept)
