"""Hostile names of the project's folder and of the interpreter's, and specs that fit no command line, in real runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from workflow_project import Project

IMAGES = "results/data/demo/images.tar"
HOSTILE = "it's {a}; touch pwned"


def few_images(config: dict[str, Any]) -> None:
    config["datasets"]["demo"] |= {"images_per_class": 5, "size": 32}


def test_a_project_that_a_shell_could_misread_is_refused_before_anything_runs(tmp_path: Path) -> None:
    project = Project.copy(tmp_path / "x$(touch pwned)")
    plan = project.snakemake(IMAGES)
    assert plan.code == 1 and "contains '$'; move or rename the folder" in plan.text and "Traceback" not in plan.text
    assert not [*tmp_path.rglob("pwned"), *tmp_path.rglob("images.tar")]


def test_a_rule_runs_in_a_folder_and_with_an_interpreter_of_any_name(tmp_path: Path) -> None:
    project = Project.copy(tmp_path / HOSTILE)
    project.edit_config(few_images)
    environment = tmp_path / "venv $(touch pwned) {b}"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (environment / f"lib/python3.{sys.version_info.minor}/site-packages/all.pth").write_text("\n".join(packages))
    run = project.call(f"{environment}/bin/python", "-m", "snakemake", "--cores=1", IMAGES)
    assert run.code == 0, run.text
    assert (project.folder / IMAGES).is_file() and not list(tmp_path.rglob("pwned"))


def test_a_spec_too_long_for_a_command_line_is_run_and_recorded(tmp_path: Path) -> None:
    project = Project.copy(tmp_path / "project")
    merge = {f"class {number}": "pond" for number in range(8_000)}
    project.edit_config(lambda config: (few_images(config), config["datasets"]["demo"].update(merge=merge)))
    run = project.snakemake("--cores=1", IMAGES)
    assert run.code == 0, run.text
    assert project.plan(IMAGES).nothing
    record = json.loads((project.folder / "logs/results/data/demo/draw.record.json").read_text())
    spec = record["command"][record["command"].index("--spec") + 1]
    assert len(spec) > 2**17 and json.loads(spec)["merge"] == merge
    merge["class 0"] = "forest"
    project.edit_config(lambda config: config["datasets"]["demo"].update(merge=merge))
    assert project.plan(IMAGES).counts == {"draw_demo": 1}
