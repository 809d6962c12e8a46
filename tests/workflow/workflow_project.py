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
    def nothing(self) -> bool:
        return "Nothing to be done" in self.text


@dataclass
class Project:
    """A copy of the workflow and the package, to change and to plan."""

    folder: Path

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
        command = [sys.executable, "-m", "snakemake", *arguments]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "PYTHONPATH": str(self.folder)}
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
        file.write_text(yaml.safe_dump(config))

    def append(self, file: str, text: str) -> None:
        with (self.folder / file).open("a") as source:
            source.write(text)
