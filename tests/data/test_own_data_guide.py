"""The guide for a user's own images: what it shows is valid, and its commands lead to a table."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from raster_cases import picture, sentinel, tiff

from cmer.config.experiment import Config, parse
from cmer.data.frames import IMAGES, TABLE, read_frame
from cmer.data.prepare import prepare

pytestmark = pytest.mark.filterwarnings("ignore")  # pytest undoes the filters of the modules that are tested
ROOT = Path(__file__).parents[2]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", (ROOT / "docs/own_data.md").read_text(), re.M | re.S)


def experiment(variant: str | None = None) -> Config:
    """The guide's experiment, with another dataset where a later section shows one."""
    config: dict[str, Any] = yaml.safe_load(blocks("yaml")[0])
    return parse(config | yaml.safe_load(variant or "{}"))


def draw(folder: Path) -> None:
    """The guide's captions and more of the kind, an image for each; class folders; and a raster beside each picture."""
    (text,) = blocks("csv")
    rows = [
        f"{label}_9{i:02}.jpg,{words} {i},{label}"
        for i in range(8)
        for label, words in (("harbour", "pier"), ("farmland", "field"))
    ]
    folder.mkdir()
    (folder / "captions.csv").write_text(text + "\n".join(rows))
    for number, name in enumerate(sorted({line.partition(",")[0] for line in [*text.splitlines()[1:], *rows]})):
        picture(folder / "images" / name, (13 * number, 99, 200), side=40, seed=number)
    for number in range(6):
        picture(folder / f"tiles/harbour/{number}.png", (0, 40 * number, 200), seed=number)
        picture(folder / f"tiles/farmland/2024/{number}.jpg", (40 * number, 99, 0), seed=6 + number)


@pytest.mark.parametrize("number", range(3))
def test_what_the_guide_configures_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setenv("MY_IMAGES", str(tmp_path / "mine"))
    draw(tmp_path / "mine")
    variants = blocks("yaml")
    assert len(variants) == 3
    if "raster" in variants[number]:
        (tmp_path / "mine/images/farm_017.jpg").write_bytes(tiff(sentinel(), crs="EPSG:32633"))
    config = experiment(variants[number] if number else None)
    (drawn, *others) = prepare(config.datasets["mine"], tmp_path / "out")
    assert drawn.what == "images name no split" and not others
    images = read_frame(tmp_path / "out/images.csv", IMAGES)
    assert set(images["split"]) == {"train", "val", "test"} and set(images["label"]) == {"harbour", "farmland"}


@pytest.mark.slow
def test_the_guides_commands_lead_to_a_table(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for part in ("workflow", "profiles"):
        shutil.copytree(ROOT / part, project / part)
    shutil.copy(ROOT / "Snakefile", project)
    draw(tmp_path / "mine")
    config = yaml.safe_load(blocks("yaml")[0])
    config["backbones"] = {"lite": {"kind": "tiny", "threads": 1}}
    config["training"] = {"epochs": 1, "batch_size": 8, "threads": 1}
    (project / "config").mkdir()
    (project / "config/mine.yaml").write_text(yaml.safe_dump(config))

    commands = "set -euo pipefail\n" + "".join(blocks("sh")).replace("/folder/of/mine", str(tmp_path / "mine"))
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": "400"}
    done = subprocess.run(["bash", "-c", commands], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "lite.cmer" in done.stdout
    table = read_frame(project / "results/mine/table1.csv", TABLE)
    mine = table[table["dataset"] == "My images"]
    assert {"none", "predicted", "oracle"} <= set(mine["label_protocol"])
    assert (mine.loc[mine["run"] == "lite.cmer", "mr"].astype(float) > 0).all()
