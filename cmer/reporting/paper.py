"""The values that the CMER paper prints, cell for cell."""

from __future__ import annotations

from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

import pandas as pd

DATASET = {1: "RSITMD", 2: "RSICD"}
"""Dataset of each benchmark table, by its number."""

ABLATION_BACKBONE, ABLATION_DATASET = "ViT-B-16", "RSITMD"
"""Setting of Tables 5 and 6; Table 4 uses the same backbone and both datasets."""


def presumed_protocol(method: str) -> str:
    """The label protocol behind a method's printed rows: only true labels in the test queries explain CMER's."""
    return "oracle" if method == "cmer" else "none"


def printed_file(number: int) -> Traversable:
    """The CSV that holds table `number`."""
    name = "tables_1_2.csv" if number in DATASET else f"table_{number}.csv"
    return resources.files("cmer.reporting") / "paper" / name


@cache
def printed_methods() -> list[str]:
    """Names of the systems in Table 1, which has all of them."""
    names: list[str] = printed(1)["method"].tolist()
    return names


def printed(number: int) -> pd.DataFrame:
    """Table `number` (1 to 6) of the CMER paper, with rows and columns in the printed order.

    Cells are strings, as printed; empty cells are "".
    """
    with resources.as_file(printed_file(number)) as path:
        table = pd.read_csv(path, dtype=str, comment="#", keep_default_na=False)
    if number in DATASET:
        table = table[table["table"] == str(number)].drop(columns="table").reset_index(drop=True)
    return table
