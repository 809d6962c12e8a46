"""Bytes of stored features, in closed form, so that an extraction starts only if they fit on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import BaseModel, NonNegativeInt

from cmer.backbones.base import BlockSpec, Shapes
from cmer.config.backbones import FeatureDtype, FeatureOptions
from cmer.errors import UserError

POOLED = 4
"""Bytes per element of a pooled embedding, which is float32."""
START = 8
"""Bytes of the position at which a text's tokens start."""


class Amounts(BaseModel, frozen=True):
    """Numbers of images, of unique texts, and of the real tokens of all texts."""

    images: NonNegativeInt
    texts: NonNegativeInt
    tokens: NonNegativeInt


def stored_bytes(shapes: Shapes, options: FeatureOptions, amounts: Amounts) -> int:
    """Bytes of all arrays of an extraction; the blocks of the options must be explicit lists."""
    blocks = [shapes.blocks[block] for block in options.blocks or []]
    text_blocks = [shapes.text_blocks[block] for block in options.text_blocks or []]
    image = POOLED * shapes.image_dim + sum(spec.tokens * token_bytes(spec, options.dtype) for spec in blocks)
    texts = amounts.texts * (POOLED * shapes.text_dim + START) + START
    tokens = amounts.tokens * sum(token_bytes(spec, options.dtype) for spec in text_blocks)
    return amounts.images * options.views * image + texts + tokens


def token_bytes(spec: BlockSpec, dtype: FeatureDtype) -> int:
    """Bytes of one token of a block, with its scale if it is quantised."""
    return {"float32": 4 * spec.width, "bfloat16": 2 * spec.width, "int8": spec.width + 4}[dtype]


def require_space(
    title: str, folder: Path, shapes: Shapes, options: FeatureOptions, amounts: Amounts, written: int
) -> None:
    """Check that what is still to be written of an extraction fits on the disk.

    Args:
        title: what is extracted, for the message.
        folder: folder of the arrays.
        shapes: shapes of the backbone.
        options: what is stored, with explicit lists of blocks.
        amounts: numbers of images, texts and tokens.
        written: bytes of the arrays that an interrupted extraction has already written.

    Raises:
        UserError: it does not fit; the message says what would take how many bytes instead.
    """
    total, free = stored_bytes(shapes, options, amounts), shutil.disk_usage(folder).free
    if total - written <= free:
        return
    done = f", of which {_size(written)} are written," if written else ""
    smaller = [
        f"{setting} in the backbone's features ({_size(stored_bytes(shapes, other, amounts))})"
        for setting, other in _smaller(options).items()
    ]
    raise UserError(
        f"the {title} take {_size(total)}{done} and {_size(free)} are free in {folder.parent}: free disk space, or set "
        f"{', '.join(smaller)}, or inputs: online in the runs' training, which stores nothing"
    )


def _smaller(options: FeatureOptions) -> dict[str, FeatureOptions]:
    """Options that take fewer bytes, each with the settings that it changes."""
    found = {}
    if options.dtype != "int8":
        found["dtype: int8"] = options.model_copy(update={"dtype": "int8"})
    if options.views > 1:
        found["views: 1"] = options.model_copy(update={"views": 1})
    lists = {name: getattr(options, name) for name in ("blocks", "text_blocks")}
    last = {name: blocks[-1:] for name, blocks in lists.items() if len(blocks) > 1}
    if last:
        found[" and ".join(f"{name}: {blocks}" for name, blocks in last.items())] = options.model_copy(update=last)
    return found


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
