"""The test of the design: one of everything from outside the package goes through training, profile, table, figure."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLE = Path(__file__).parent / "example"

CONFIG = """
datasets:
  own: {source: folder, title: mine, root: own, annotations: null, images: .}
backbones:
  wide: {kind: wide_tiny}
training: {epochs: 2, batch_size: 8, threads: 1}
profile: {batches: [2, 4], steps: 1, rounds: 1, threads: 1}
run_defaults: {datasets: [own], backbones: [wide]}
runs:
  probe: {method: gained_probe, options: {gain: 0.25}}
  hard: {based_on: probe, options: {loss: triplet}}
tables:
  best: {runs: [wide.*], protocols: [none]}
  table3: {runs: [wide.*]}
figures:
  bars: {runs: [wide.*]}
"""


def install(site: Path) -> None:
    """What installing the example package leaves in site-packages."""
    shutil.copytree(EXAMPLE, site / "example", ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "example-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
    shutil.move(site / "example/entry_points.txt", info)


def draw(folder: Path) -> None:
    """Twenty images in each of two class folders: an own dataset that needs no captions."""
    for name, colour in {"forest": (20, 120, 30), "pond": (30, 60, 200)}.items():
        (folder / name).mkdir(parents=True)
        for number in range(20):
            image = Image.new("RGB", (32, 32), (*colour[:2], colour[2] + number))
            image.putpixel((0, 0), (255, 255, 255))
            image.save(folder / name / f"{number}.png")


class Outside:
    """A project folder whose Python path has the example package and this checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        install(folder / "site")
        draw(folder / "own")
        for part in ("Snakefile", "workflow", "profiles"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        (folder / "mine.yaml").write_text(CONFIG)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": f"{self.folder / 'site'}:{ROOT}"}
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=self.folder, env=environment, text=True, capture_output=True
        )

    def snakemake(self, *words: str) -> str:
        done = self.run("snakemake", "--configfile=mine.yaml", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Outside:
    """The whole experiment, run once."""
    made = Outside(tmp_path_factory.mktemp("outside"))
    made.snakemake()
    return made


def test_one_of_everything_goes_the_whole_way(outside: Outside) -> None:
    best = pd.read_csv(outside.folder / "results/best.csv")
    assert best["run"].isin(["wide.probe", "wide.hard"]).all() and (best["mr"] > 0).all()
    costs = pd.read_csv(outside.folder / "results/table3.csv").query("source == 'measured'")
    assert set(costs["run"]) == {"wide.probe", "wide.hard"} and (costs["backbone"] == "wide tiny").all()
    with Image.open(outside.folder / "results/figures/bars.png") as drawn:
        assert drawn.width > 300
    folder = outside.folder / "results/curves/own"
    curves = [
        json.loads((folder / f"wide.{name}/seed2022.jsonl").read_text().splitlines()[1]) for name in ("probe", "hard")
    ]
    assert curves[0]["loss"] != curves[1]["loss"], "the loss of the config was used"


def test_an_edited_loss_or_method_from_outside_plans_its_runs(outside: Outside) -> None:
    def plan() -> str:
        return outside.snakemake("--dry-run")

    assert "Nothing to be done" in plan()
    for file, runs in (("triplet.py", {"wide.hard"}), ("gained_probe/model.py", {"wide.hard", "wide.probe"})):
        source = outside.folder / "site/example" / file
        before = source.read_text()
        source.write_text(before + "\nCHANGED = 1\n")
        planned = plan()
        assert {
            name for name in ("wide.hard", "wide.probe") if f"wildcards: dataset=own, run={name}," in planned
        } == runs
        source.write_text(before)


def test_commands_know_what_is_installed(outside: Outside) -> None:
    assert "gained_probe" in outside.run("cmer", "params", "--list").stdout
    schema = (
        json.loads((outside.folder / "schema.json").read_text())
        if outside.run("cmer", "schema", "--out", "schema.json").returncode == 0
        else {}
    )
    assert "gain" in schema["$defs"]["GainedProbeOptions"]["properties"]
    assert yaml.safe_load(CONFIG)["runs"]["probe"]["options"] == {"gain": 0.25}
