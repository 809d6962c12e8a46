"""Trainings that share a batch among processes are planned as such."""

from pathlib import Path

import yaml
from workflow_project import Project


def test_a_training_of_two_processes_is_started_by_torchrun(fresh: Project, tmp_path: Path) -> None:
    clip = {"kind": "open_clip", "model": "ViT-B-32", "pretrained": "openai", "printed": "ViT-B-32"}
    run = {"name": "clip.linear_probe", "datasets": ["demo"], "backbone": "clip", "method": "linear_probe"}
    config = {"results": "results/two", "backbones": {"clip": clip}, "runs": [run], "tables": []}
    overlay = tmp_path / "overlay.yaml"
    target = "results/two/checkpoints/demo/clip.linear_probe/seed2022.safetensors"
    needs = {}
    for processes in (1, 2):
        overlay.write_text(yaml.safe_dump(config | {"training": {"processes": processes, "threads": 1}}))
        plan = fresh.plan("--printshellcmds", "--resources", "gpu=4", f"--configfile={overlay}", target)
        start = (
            "torchrun --standalone --nproc-per-node 2 -m cmer train --spec" if processes > 1 else " cmer train --spec"
        )
        assert start in plan.text
        needs[processes] = plan.text[plan.text.index("rule train:") :]
    assert "gpu=2" in needs[2] and "gpu=1" in needs[1]
