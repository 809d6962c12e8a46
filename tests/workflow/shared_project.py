"""A copy of the project under git and DVC, with two small experiments: its default one, and `ci`; and clones of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from workflow_project import ROOT, Plan, Project

PARTS = (
    *("Snakefile", "config.yaml", "config", "workflow", "profiles", "cmer", "requirements.txt"),
    *("Makefile", "scripts", "dvc.yaml", ".dvc", ".dvcignore", ".gitignore"),
)
LOCAL = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")


class Shared(Project):
    """A project that shares its results through DVC."""

    def call(self, *command: str) -> Plan:
        """Run a program of the environment or the system."""
        environment = {
            "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
            "HOME": str(self.folder.parent),
            "PYTHONPATH": str(self.folder),
            "DVC_SITE_CACHE_DIR": str(self.folder.parent / "dvc"),
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_MAX_ATTEMPTS": "1",
            **{
                f"GIT_{who}_{what}": "tester@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
            },
        }
        done = subprocess.run(
            command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return Plan(done.stdout, done.returncode)

    def run(self, *command: str) -> str:
        """Output of a command that must succeed."""
        done = self.call(*command)
        assert done.code == 0, done.text
        return done.text

    def make(self, target: str, *variables: str) -> Plan:
        """`make` a target in the current environment."""
        return self.call("make", "--assume-old=.venv/.installed", target, *variables)

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message=results")

    def clone(self, folder: Path) -> "Shared":
        self.run("git", "clone", "--quiet", str(self.folder), str(folder))
        return Shared(folder)

    def files(self, *folders: str) -> dict[str, bytes]:
        """Contents of all results, or of those in some folders, by path."""
        roots = [self.folder / "results" / name for name in folders or [""]]
        paths = sorted(path for root in roots for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


def smallest(folder: Path) -> Shared:
    """Copy the project to `folder`, its default experiment being config/ci.yaml with all tables."""
    folder.mkdir(parents=True)
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=LOCAL)
        else:
            shutil.copy(ROOT / part, folder)
    tables = {f"table{number}": {"runs": ["*"]} for number in range(1, 7)}
    default = yaml.safe_load((ROOT / "config/ci.yaml").read_text()) | {"results": "results", "tables": tables}
    (folder / "config.yaml").write_text(yaml.safe_dump(default, sort_keys=False))
    pipeline = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(pipeline.replace("foreach: [", "foreach: [ci, "))
    project = Shared(folder)
    project.run("git", "init", "--quiet")
    project.commit()
    return project
