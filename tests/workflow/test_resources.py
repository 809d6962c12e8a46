"""What steps take of a machine, and what many of them have in common, asked from Snakemake by dry runs."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from workflow_project import ROOT, Plan, Project

OF_IMAGES = {"prepare_data", "augment_captions", "extract_features", "train", "embed", "evaluate"}
PAPER = yaml.safe_load((ROOT / "config/paper.yaml").read_text())


def resources(plan: Plan) -> dict[str, dict[str, int]]:
    """The most that a job of each rule takes."""
    most: dict[str, dict[str, int]] = defaultdict(dict)
    for rule, line in re.findall(r"^(?:local)?rule (\w+):$.*?^    resources: (.*?)$", plan.text, re.M | re.S):
        for name, amount in re.findall(r"(mem_mb|runtime|gpu)=(\d+)", line):
            most[rule][name] = max(most[rule].get(name, 0), int(amount))
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
    assert len(first) == 11
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
    assert on_gpu == {"train", "embed", "profile"}
    assert not any(taken.get("gpu") for taken in resources(smallest).values())


def test_paper_extracts_features_once_for_a_backbone_and_a_dataset(fresh: Project, paper: Plan) -> None:
    per_dataset = sum(len(run["datasets"]) for run in PAPER["runs"])
    stored = PAPER | {"training": PAPER["training"] | {"inputs": "stored"}}
    (fresh.folder / "stored.yaml").write_text(yaml.safe_dump(stored))
    counts = fresh.plan("--configfile=stored.yaml").counts
    assert counts["extract_features"] == len(PAPER["backbones"]) * len(PAPER["datasets"]) == 8
    assert counts["prepare_data"] == counts["augment_captions"] == 2
    assert counts["train"] == counts["embed"] == counts["evaluate"] == 3 * per_dataset == 186
    assert "extract_features" not in paper.counts, "its runs open the images"


def test_profiles_share_no_setting() -> None:
    default, slurm = (
        yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text()) for name in ("default", "slurm")
    )
    assert not set(default) & set(slurm), "default would win"
