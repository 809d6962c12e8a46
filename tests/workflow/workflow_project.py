"""A copy of the project in which a test can change files and ask Snakemake for its plan."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "config.yaml", "config", "workflow", "profiles", "cmer")


@dataclass
class Plan:
    """What a dry run says."""

    text: str
    code: int

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(re.findall(r"^(?:local)?rule (\w+):$", self.text, re.M)))

    @property
    def runs(self) -> set[str]:
        return set(re.findall(r"^    wildcards: .*\brun=([^,\n]+)", self.text, re.M))

    @property
    def outputs(self) -> list[str]:
        return [path for line in re.findall(r"^    output: (.*)$", self.text, re.M) for path in line.split(", ")]

    @property
    def logs(self) -> list[str]:
        return [path for line in re.findall(r"^    log: (.*)$", self.text, re.M) for path in line.split(", ")]

    @property
    def nothing(self) -> bool:
        return "Nothing to be done" in self.text


@dataclass
class Project:
    """A copy of the workflow and the package, to change and to plan.

    Attributes:
        folder: of the copy.
        programs: folder of programs that are found before the system's.
    """

    folder: Path
    programs: Path | None = None

    @classmethod
    def copy(cls, folder: Path) -> Self:
        """A copy in `folder`, in which nothing has run."""
        folder.mkdir(exist_ok=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder)
        return cls(folder)

    def snakemake(self, *arguments: str) -> Plan:
        return self.call(sys.executable, "-m", "snakemake", *arguments)

    def call(self, *command: str) -> Plan:
        """Run a program."""
        path = ":".join([*([str(self.programs)] if self.programs else []), "/usr/bin", "/bin"])
        environment = {"PATH": path, "HOME": str(self.folder), "PYTHONPATH": str(self.folder)}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return Plan(done.stdout, done.returncode)

    def plan(self, *targets: str) -> Plan:
        plan = self.snakemake("--dry-run", *targets)
        assert plan.code == 0, plan.text
        return plan

    def edit_config(self, change: Callable[[dict[str, Any]], None]) -> None:
        file = self.folder / "config.yaml"
        config = yaml.safe_load(file.read_text())
        change(config)
        file.write_text(yaml.safe_dump(config, sort_keys=False))

    def append(self, file: str, text: str) -> None:
        with (self.folder / file).open("a") as source:
            source.write(text)


@dataclass(frozen=True)
class Experiment:
    """A published experiment, as dvc.yaml has it.

    Attributes:
        config: its file.
        results: folder of its results.
        outs: what DVC keeps, and in `settings` how.
    """

    config: str
    results: Path
    outs: frozenset[Path]
    settings: list[dict[str, bool]]


def published_experiments() -> dict[str, Experiment]:
    """The stages of dvc.yaml, by the names of their experiments."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

    def experiment(config: str, results: str, stage: dict[str, Any], item: str = "") -> Experiment:
        outs = {name.replace("${item}", item): settings for out in stage["outs"] for name, settings in out.items()}
        return Experiment(config, Path(results), frozenset(map(Path, outs)), list(outs.values()))

    others = stages["experiment"]["foreach"]
    return {"demo": experiment("config.yaml", "results", stages["demo"])} | {
        name: experiment(f"config/{name}.yaml", f"results/{name}", stages["experiment"]["do"], name) for name in others
    }
