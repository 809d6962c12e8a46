"""The pretrained model of the package is the measured one, small, and loads by its name."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cmer
from cmer.inference.export import probe
from cmer.inference.model import PRETRAINED
from cmer.provenance import stored_record

ROOT = Path(__file__).parents[2]
MODEL = PRETRAINED / "rsicd_lite_cmer.safetensors"
MEASURED = ROOT / "docs/measured/rsicd_lite_cmer"
CARD = (ROOT / "docs/models.md").read_text()


def test_it_is_small_and_loads_by_its_name() -> None:
    assert MODEL.stat().st_size < 10e6
    model = cmer.load("rsicd_lite_cmer")
    images, texts = probe.embedded(model)
    assert images.shape == (3, 512) and texts.shape == (4, 512)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([images, texts]), axis=1), 1, atol=1e-5)
    best = model.rank("some planes at an airport", texts).indices[0]
    assert "planes" in probe.TEXTS[best]


def test_its_recalls_were_measured_with_this_file() -> None:
    metrics = json.loads((MEASURED / "metrics.json").read_text())
    record, measured = stored_record(MODEL), metrics["record"]
    assert record and all(measured[name] == value for name, value in record.items())
    table = pd.read_csv(MEASURED / "recalls.csv").set_index(["protocol", "recall"])
    for protocol, recalls in metrics["protocols"].items():
        assert recalls["mr_interval"] == pytest.approx(table.loc[(protocol, "mr"), ["low", "high"]].tolist(), abs=1e-3)
        assert all(table.loc[(protocol, name), "value"] == recalls[name] for name in ("i2t_r1", "t2i_r10", "mr"))


def test_its_card_states_what_was_measured() -> None:
    rows = pd.read_csv(MEASURED / "recalls.csv")
    stated = re.findall(r"([\d.]+) \(([\d.]+) \u2013 ([\d.]+)\)", CARD)
    expected = [
        tuple(f"{value:.1f}" for value in (row.value, row.low, row.high))
        for protocol in ("none", "oracle")
        for row in rows[rows["protocol"] == protocol].itertuples()
    ]
    assert sorted(stated) == sorted(expected)
