"""Trainings that share a batch among processes are planned as such."""

import re
from pathlib import Path

import pytest
import yaml
from workflow_project import Plan, Project

TARGET = "results/two/checkpoints/demo/clip.{}/seed2022.safetensors"


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    """The option that names a config with a training in two processes, one in one, and a run that trains nothing."""
    clip = {"kind": "open_clip", "model": "ViT-B-32", "pretrained": "openai", "printed": "ViT-B-32"}
    run = {"datasets": ["demo"], "backbone": "clip", "method": "linear_probe"}
    config = {
        "results": "results/two",
        "backbones": {"clip": clip},
        "runs": [
            run | {"name": "clip.two"},
            run | {"name": "clip.one", "training": {"processes": 1}},
            run | {"name": "clip.none", "method": "zero_shot"},
        ],
        "tables": [],
        "training": {"processes": 2, "threads": 1},
    }
    file = tmp_path / "overlay.yaml"
    file.write_text(yaml.safe_dump(config))
    return f"--configfile={file}"


def training(plan: Plan) -> str:
    """What a plan says of its training."""
    return plan.text[plan.text.index("rule train:") :]


def amounts(text: str) -> dict[str, int]:
    return {name: int(n) for name, n in re.findall(r"(mem_mb|gpu|nodes)=(\d+)", text)}


def test_a_training_of_two_processes_is_started_by_torchrun_and_takes_twice_as_much(
    fresh: Project, overlay: str
) -> None:
    one, two = (
        training(fresh.plan("--printshellcmds", "--resources", "gpu=2", overlay, TARGET.format(name)))
        for name in ("one", "two")
    )
    assert "torchrun" not in one and " cmer train --spec" in one
    assert "torchrun --standalone --nproc-per-node 2 -m cmer train --spec" in two
    assert amounts(one) == {"gpu": 1, "mem_mb": 18_000, "nodes": 1}
    assert amounts(two) == {"gpu": 2, "mem_mb": 36_000, "nodes": 1}


def test_a_cluster_gives_a_training_all_its_gpus_unasked(fresh: Project, overlay: str) -> None:
    two = training(fresh.plan("--profile", "profiles/slurm", overlay, TARGET.format("two")))
    assert amounts(two) == {"gpu": 2, "mem_mb": 36_000, "nodes": 1}


def test_a_training_that_needs_more_gpus_than_the_limit_is_refused_before_the_first_step(
    tmp_path: Path, overlay: str
) -> None:
    project = Project.copy(tmp_path / "project")
    wanted = "run clip.two trains in 2 processes, each on a GPU of its own, and the limit is 1: add --resources gpu=2"
    for how in (["--dry-run"], []):
        refused = project.snakemake(*how, overlay, TARGET.format("two"))
        assert refused.code == 1
        assert wanted in refused.text
    assert not (project.folder / "results").exists()


def test_other_runs_are_planned_under_that_limit(fresh: Project, overlay: str) -> None:
    assert "gpu=1" in training(fresh.plan(overlay, TARGET.format("one")))
    none = training(fresh.plan("--printshellcmds", overlay, TARGET.format("none")))
    assert "gpu=0" in none and "torchrun" not in none
