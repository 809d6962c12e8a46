"""The workflow on a real SLURM cluster of one node."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from slurm_cluster import missing, slurm_cluster
from workflow_project import Plan, Project

from cmer.archive.store import Archive
from cmer.io import sha256

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing()), reason="needs slurm-wlm and munge"),
]

ON_CLUSTER = (
    *("--profile", "profiles/slurm", "--slurm-no-account", "--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "1"),
)
TABLES = ("results/ci/table1.csv", "results/ci/table4.csv")


@dataclass
class Cluster:
    """What a user of the cluster can do."""

    environment: dict[str, str]

    @contextmanager
    def snakemake(self, project: Project, *arguments: str) -> Iterator[Callable[[], Plan]]:
        """Snakemake, running; call what is yielded for its end."""
        command = [sys.executable, "-m", "snakemake", *ON_CLUSTER, *arguments]
        environment = self.environment | {"HOME": str(project.folder), "PYTHONPATH": str(project.folder)}
        log = project.folder / "snakemake.log"
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=project.folder, env=environment, stdout=file, stderr=file)
        try:
            yield lambda: Plan(code=process.wait(), text=log.read_text())
        finally:
            process.terminate()

    def run(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, text=True, capture_output=True, check=True).stdout

    def running(self, step: str) -> str:
        """The number of the job of a step, once it runs."""
        return wait_for(
            lambda: re.search(rf"^(\d+) {re.escape(step)}$", self.run("squeue", "-ht", "R", "-o", "%i %k"), re.M)
        )

    def stall(self, job: str) -> None:
        """Let a job do nothing until its time is up, in a minute."""
        self.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
        for process in self.run("scontrol", "listpids", job).split("\n")[1:-1]:
            os.kill(int(process.split()[0]), signal.SIGSTOP)


def wait_for(found: Callable[[], re.Match[str] | None]) -> str:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if match := found():
            return match[1]
        time.sleep(0.2)
    raise TimeoutError("the job does not run")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm_cluster() as environment:
        yield Cluster(environment)


def artifacts(project: Project) -> dict[str, str]:
    results = project.folder / "results/ci"
    return {str(file.relative_to(results)): sha256(file) for file in results.rglob("*") if file.is_file()}


def test_cancelled_and_late_jobs_run_again_and_all_bytes_are_those_of_a_local_run(
    cluster: Cluster, tmp_path: Path
) -> None:
    here, there = Project.copy(tmp_path / "here"), Project.copy(tmp_path / "there")
    with cluster.snakemake(there, "--configfile=config/ci.yaml", *TABLES) as end:
        cluster.run("scancel", cluster.running("rule_train_wildcards_demo_tiny.clip_lora_2022"))
        late = cluster.running("rule_train_wildcards_demo_tiny.cmer_2022")
        cluster.stall(late)
        assert "gpu" not in cluster.run("scontrol", "show", "job", late)
        local = here.snakemake("--configfile=config/ci.yaml", *TABLES)
        ended = end()
    assert ended.code == local.code == 0, ended.text + local.text
    assert "SLURM status is: 'CANCELLED'" in ended.text
    assert "SLURM status is: 'TIMEOUT'" in ended.text
    one_of_data, features, trainings, sent_again, tests = 1, 2, 3, 2, 3
    assert ended.text.count("has been submitted") == one_of_data + features + trainings + sent_again + tests
    assert artifacts(there) == artifacts(here)
    assert there.plan("--configfile=config/ci.yaml", *TABLES).nothing


def on_gpus(folder: Path) -> Project:
    """A copy of the project with a config whose one run trains on two GPUs."""
    config = {
        "results": "results/gpu",
        "datasets": {"demo": {"source": "demo"}},
        "backbones": {"vit": {"kind": "open_clip", "model": "ViT-B-32"}},
        "training": {"inputs": "online", "processes": 2, "threads": 1},
        "runs": {"clip_lora": {"method": "clip_lora", "datasets": ["demo"], "backbones": ["vit"]}},
        "tables": {"table3": {"runs": ["vit.clip_lora"]}},
    }
    project = Project.copy(folder)
    (project.folder / "mine.yaml").write_text(yaml.safe_dump(config))
    return project


def test_training_in_two_processes_has_two_gpus_of_one_node(cluster: Cluster, tmp_path: Path) -> None:
    project = on_gpus(tmp_path / "project")
    target = "results/gpu/checkpoints/demo/vit.clip_lora/seed2022.safetensors"
    with cluster.snakemake(project, "--retries", "0", "--configfile=mine.yaml", target) as end:
        job = cluster.running("rule_train_wildcards_demo_vit.clip_lora_2022")
        assert re.search(r"NumNodes=1 .*TresPerJob=gres:gpu:2", cluster.run("scontrol", "show", "job", job), re.S)
        step = r"TresPerStep=\S*gres:gpu:(\d)"
        assert wait_for(lambda: re.search(step, cluster.run("scontrol", "show", "step", job))) == "2"
        cluster.run("scancel", job)
        end()


def test_job_that_is_not_sent_again_is_reported_with_its_rule_and_log(cluster: Cluster, tmp_path: Path) -> None:
    project = on_gpus(tmp_path / "project")
    target = "results/gpu/efficiency/vit.json"
    with cluster.snakemake(project, "--retries", "0", "--configfile=mine.yaml", target) as end:
        job = cluster.running("rule_profile_wildcards_vit")
        assert "TresPerJob=gres:gpu:1" in cluster.run("scontrol", "show", "job", job)
        cluster.run("scancel", job)
        ended = end()
    assert ended.code == 1
    text = ended.text
    assert re.search(r"Error in rule profile:\n +message: SLURM-job '\d+' failed, SLURM status is: 'CANCELLED'", text)
    assert re.search(
        r"log: logs/results/gpu/efficiency/vit\.log, .*\.snakemake/slurm_logs/rule_profile/vit/\d+\.log", text
    )
    assert "Traceback" not in text


def test_an_archive_that_jobs_embed_in_shards_is_that_of_one_index_run(cluster: Cluster, tmp_path: Path) -> None:
    project = Project.copy(tmp_path / "project")
    images = project.folder / "images"
    for number in range(12):
        file = images / f"{number % 3}/{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)).save(file)
    archive = {"folder": str(images), "checkpoint": "rsicd_lite_cmer", "store": "own/archive.lance", "shards": 2}
    config = {
        "results": "results/mine",
        "datasets": {"demo": {"source": "demo"}},
        "backbones": {"tiny": {"kind": "tiny"}},
        "runs": {"cmer": {"method": "cmer", "datasets": ["demo"], "backbones": ["tiny"]}},
        "archives": {"own": archive | {"threads": 1}},
    }
    (project.folder / "mine.yaml").write_text(yaml.safe_dump(config))
    target = "results/mine/archives/own/archive.json"
    later = ("--slurm-init-seconds-before-status-checks", "15")  # the next check is 25 seconds after one in vain
    with cluster.snakemake(project, *later, "--configfile=mine.yaml", target) as end:
        once = project.call(
            sys.executable, "-m", "cmer", "index", "images", "--run", "rsicd_lite_cmer", "--store", "one"
        )
        ended = end()
    assert ended.code == once.code == 0, ended.text + once.text
    shards, join = 2, 1
    assert ended.text.count("has been submitted") == shards + join
    there, here = (rows(project.folder / store) for store in ("own/archive.lance", "one"))
    np.testing.assert_allclose([row.pop("vector") for row in there], [row.pop("vector") for row in here], atol=1e-5)
    assert there == here and len(there) == 12


def rows(store: Path) -> list[dict]:
    archive = Archive.open(store)
    return sorted(archive.read(archive.table.schema.names).read_all().to_pylist(), key=lambda row: row["id"])
