"""Trainings that share a batch among processes are planned as such; how many GPUs each has is in tests/test_plan.py."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from workflow_project import Plan, Project

from cmer.errors import UserError
from cmer.training.distributed import joined

TARGET = "results/two/checkpoints/demo/clip.{}/seed2022.safetensors"


@pytest.fixture
def config(tmp_path: Path) -> str:
    """The option that names a config with a training in two processes, one in one, and a run that trains nothing."""
    mine = {
        "results": "results/two",
        "datasets": {"demo": {"source": "demo"}},
        "backbones": {"clip": {"kind": "open_clip", "model": "ViT-B-32", "pretrained": "openai"}},
        "training": {"processes": 2, "threads": 1},
        "run_defaults": {"datasets": ["demo"], "backbones": ["clip"], "method": "linear_probe"},
        "runs": {"two": {}, "one": {"training": {"processes": 1}}, "none": {"method": "zero_shot"}},
    }
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(mine))
    return f"--configfile={file}"


def training(plan: Plan, run: str) -> str:
    """What a plan says of the training of a run."""
    (found,) = re.findall(rf"^rule train:\n(?:(?!^$).*\n)*?    wildcards: .*run=clip\.{run},(?:.+\n)*", plan.text, re.M)
    return str(found)


def amounts(text: str) -> dict[str, int]:
    return {name: int(n) for name, n in re.findall(r"(mem_mb|gpu|gpu_jobs|nodes)=(\d+)", text)}


@pytest.mark.parametrize("profile", [(), ("--profile", "profiles/slurm")])
def test_a_training_of_two_processes_is_started_by_torchrun_and_takes_twice_as_much(
    fresh: Project, config: str, profile: tuple[str, ...]
) -> None:
    """The default profile limits GPU jobs, never the GPUs of one of them; a cluster gives it all of them unasked."""
    targets = [TARGET.format(run) for run in ("one", "two", "none")]
    plan = fresh.plan("--printshellcmds", *profile, config, *targets)
    one, two, none = (training(plan, run) for run in ("one", "two", "none"))
    assert "torchrun" not in one and " cmer train --spec" in one
    assert "torchrun --standalone --nproc-per-node 2 -m cmer train --spec" in two
    assert "torchrun" not in none
    assert amounts(one) == {"gpu": 1, "gpu_jobs": 1, "mem_mb": 18_000, "nodes": 1}
    assert amounts(two) == {"gpu": 2, "gpu_jobs": 1, "mem_mb": 36_000, "nodes": 1}
    assert amounts(none) == {"gpu": 0, "gpu_jobs": 0, "mem_mb": 18_000, "nodes": 1}


def test_a_training_that_finds_too_few_gpus_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one machine: a cluster grants the GPUs with the job."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    wanted = "training.processes is 2, but this machine has 1 GPUs: each needs one"
    with pytest.raises(UserError, match=re.escape(wanted)), joined(2):
        pytest.fail("the training has begun")
