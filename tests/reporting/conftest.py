from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from report_project import write_results

from cmer.data.frames import write_frame
from cmer.io import sha256, write_sealed
from cmer.reporting.metrics import RECALLS

STEP = {
    "options": {},
    "parameters": 2_719_552,
    "precision": "float32",
    "attention": "sdpa",
    "tokens": 23,
    "saved_bytes": 0,
    "macs_forward": 30_000_000_000,
    "macs_backward": 20_000_000_000,
    "peak_bytes": 300_000_000,
    "peak_reserved_bytes": None,
    "pairs_per_second": 40.0,
    "pairs_per_second_low": 38.0,
    "pairs_per_second_high": 41.0,
    "steps": 9,
}


@pytest.fixture
def write_metrics(tmp_path):
    """Write a run's metrics, mR given per seed; `oracle` is ten points above `none`."""

    def write(run: dict, mrs: dict[int, float]) -> list[Path]:
        files = []
        for seed, mr in mrs.items():
            six = {p: dict.fromkeys((*RECALLS, "mr"), mr + add) for p, add in (("none", 0), ("oracle", 10))}
            spec = {"run": run["name"], "dataset": run["dataset"], "seed": seed}
            spec |= {"method": run["method"], "options": run["options"]}
            metrics = {
                "protocols": {p: row | {"mr_interval": [row["mr"] - 1.5, row["mr"] + 1.4]} for p, row in six.items()},
                "controls": {"label_only": dict.fromkeys((*RECALLS, "mr"), 5.0)},
                "record": {
                    "spec": spec,
                    "trainable_parameters": 2_719_552,
                    "train_images": 8_734,
                    "images_seen": 174_680,
                    "epochs": 20,
                },
            }
            files.append(tmp_path / f"{run['dataset']}.{run['name']}.{seed}.json")
            ranks = files[-1].with_suffix(".ranks.csv")
            write_ranks(ranks, run["name"], seed, {p: row["mr"] for p, row in six.items()})
            write_sealed(files[-1], metrics | {"ranks": sha256(ranks)}, "cmer evaluate")
        return files

    return write


def write_ranks(file: Path, run: str, seed: int, mrs: dict[str, float]) -> None:
    """Ranks of 40 images with two captions each: about `mr` percent of the queries are hits."""
    rng = np.random.default_rng([seed, *run.encode()])
    images, owner = np.arange(40), np.repeat(np.arange(40), 2)
    tables = [
        pd.DataFrame({"protocol": p, "direction": direction, "query": range(len(image)), "image": image}).assign(
            greater=np.where(rng.random(len(image)) < mr / 100, 0, 99), tied_negatives=0, tied_positives=1
        )
        for p, mr in mrs.items()
        for direction, image in (("i2t", images), ("t2i", owner))
    ]
    write_frame(file, pd.concat(tables))


@pytest.fixture
def write_profile(tmp_path):
    """Write the profile of a backbone; a step is given as what differs from `STEP`, with its `saved_mb` per pair."""

    def write(backbone: str, steps: list[dict], device: str = "cpu: Toy CPU") -> Path:
        rows = [STEP | {"setting": "today", "batch": 2} | step for step in steps]
        saved = {
            (row["run"], row["setting"]): {
                "run": row["run"],
                "setting": row["setting"],
                "bytes_per_pair": row.pop("saved_mb", 10) * 1e6,
                "fixed_bytes": 5e6,
            }
            for row in rows
        }
        file = tmp_path / f"{backbone}.json"
        profile = {"backbone": backbone, "device": device, "threads": 2, "versions": {}, "code": "0" * 32}
        write_sealed(file, profile | {"rows": rows, "saved": list(saved.values())}, "cmer profile")
        return file

    return write


@pytest.fixture
def texts_of(monkeypatch):
    """Draw a figure; every text in it with its box in pixels."""

    def texts(figure):
        drawn, draw_text = [], Text.draw
        with monkeypatch.context() as patch:
            patch.setattr(Text, "draw", lambda text, renderer: (drawn.append(text), draw_text(text, renderer)))
            FigureCanvasAgg(figure).draw()
        return [(text.get_text(), text.get_window_extent()) for text in drawn if text.get_text() and text.get_visible()]

    return texts


@pytest.fixture
def results(prepared, tmp_path, monkeypatch):
    """Results of a run, in a folder `results` of the current one."""
    monkeypatch.chdir(tmp_path)
    write_results(prepared, tmp_path / "results")
    return tmp_path / "results"
