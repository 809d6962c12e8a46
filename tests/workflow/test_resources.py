"""What steps take of a machine, asked from Snakemake by dry runs."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from workflow_project import ROOT, Plan, Project

from cmer.registry import METHOD_OPTIONS

OF_IMAGES = {"prepare_data", "augment_captions", "extract_features", "train", "embed", "evaluate"}


def jobs(plan: Plan) -> list[tuple[str, str, dict[str, int]]]:
    """Of every job the rule, the wildcards and what it takes."""
    found = re.findall(
        r"^(?:local)?rule (\w+):$.*?(?:^    wildcards: (.*?)$.*?)?^    resources: (.*?)$", plan.text, re.M | re.S
    )
    return [
        (rule, wildcards, {name: int(n) for name, n in re.findall(r"(mem_mb|runtime|gpu)=(\d+)", line)})
        for rule, wildcards, line in found
    ]


def resources(plan: Plan) -> dict[str, dict[str, int]]:
    """The most that a job of each rule takes."""
    most: dict[str, dict[str, int]] = defaultdict(dict)
    for rule, _, taken in jobs(plan):
        for name, amount in taken.items():
            most[rule][name] = max(most[rule].get(name, 0), amount)
    return most


@pytest.fixture(scope="module")
def paper(fresh: Project) -> Plan:
    """The plan of all of the paper's tables."""
    return fresh.plan("--configfile=config/paper.yaml")


@pytest.fixture(scope="module")
def smallest(fresh: Project) -> Plan:
    """The plan of the smallest experiment."""
    return fresh.plan("--configfile=config/ci.yaml")


def test_every_step_says_what_it_takes_and_takes_more_at_another_attempt(fresh: Project, smallest: Plan) -> None:
    first = resources(smallest)
    third = resources(fresh.plan("--configfile=config/ci.yaml", "--attempt", "3"))
    assert len(first) == 13
    for rule, taken in first.items():
        assert third[rule]["mem_mb"] == 3 * taken["mem_mb"]
        assert third[rule]["runtime"] == 3 * taken["runtime"]


def test_steps_take_more_of_a_larger_dataset(tmp_path: Path) -> None:
    project = Project.copy(tmp_path / "project")
    described = project.folder / "results/ci/data/demo/images.csv"
    described.parent.mkdir(parents=True)

    def plan(images: int) -> dict[str, dict[str, int]]:
        row = f"airport_1,airport_1.jpg,airport,train,224,224,{'0' * 64}\n"
        described.write_text(row * images)
        return resources(project.plan("--configfile=config/ci.yaml"))

    small, large = plan(1_000), plan(100_000)
    for rule in OF_IMAGES:
        assert large[rule]["mem_mb"] > small[rule]["mem_mb"]
        assert large[rule]["runtime"] > small[rule]["runtime"]


def test_only_clip_towers_ask_for_a_gpu(smallest: Plan, paper: Plan) -> None:
    on_gpu = {rule for rule, taken in resources(paper).items() if taken.get("gpu")}
    assert on_gpu == {"train", "embed", "heat_maps", "profile"}
    assert not any(taken.get("gpu") for taken in resources(smallest).values())


def test_a_run_that_trains_nothing_asks_for_no_gpu_and_little_time(paper: Plan) -> None:
    trainings = [(wildcards, taken) for rule, wildcards, taken in jobs(paper) if rule == "train"]
    assert len(trainings) == 252
    idle = [taken for wildcards, taken in trainings if ".zero_shot" in wildcards]
    busy = [taken for wildcards, taken in trainings if ".zero_shot" not in wildcards]
    assert {taken["gpu"] for taken in idle} == {0} and {taken["gpu"] for taken in busy} == {1}
    assert len(idle) == 12 and max(taken["runtime"] for taken in idle) < min(taken["runtime"] for taken in busy)
    assert {taken["mem_mb"] for taken in idle} == {18_000}, "its towers are loaded"


def test_planning_knows_the_methods_that_train_nothing() -> None:
    command = [sys.executable, "-m", "cmer", "params", "--backbone", "ViT-B-32", "--json"]
    rows = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    untrained = {name for name in METHOD_OPTIONS.names() if not METHOD_OPTIONS.get(name).trains}
    assert {row["method"] for row in rows if not row["params"]} == untrained


def test_the_paper_has_as_many_steps_as_its_runs_datasets_and_seeds_make(paper: Plan) -> None:
    assert paper.counts["prepare_data"] == paper.counts["augment_captions"] == 2
    assert paper.counts["train"] == paper.counts["embed"] == paper.counts["evaluate"] == 252
    assert "extract_features" not in paper.counts, "its runs open the images"


def test_profiles_share_no_setting() -> None:
    default, slurm = (
        yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text()) for name in ("default", "slurm")
    )
    assert not set(default) & set(slurm), "default would win"
