"""Kill the workflow at random moments, start it again as the profiles' README says, and compare every file it makes.

    python tests/workflow/kill.py --kills 20

Prints a line a kill and a verdict a run, and ends with status 1 where a run lost or changed anything.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from workflow_project import Project

OVERLAY = Path(__file__).with_name("kill.yaml")
TARGETS = ("main", "group", "worker", "training", "write")
KILLS_A_RUN = 4
LONGEST = 900.0
"""Seconds after which a run that neither ends nor meets its kill is an error."""


@dataclass
class Copy:
    """A copy of the project that runs the workflow in sessions of its own, so that all of its processes are known."""

    folder: Path
    sessions: list[int] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path) -> Copy:
        Project.copy(folder)
        shutil.copy(OVERLAY, folder / "config")
        return cls(folder)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(self.folder)}
        command = [sys.executable, "-m", "snakemake", "--cores", "2", f"--configfile=config/{OVERLAY.name}", *arguments]
        with (self.folder / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self.sessions.append(process.pid)
        return process

    def finish(self) -> None:
        """Start again as documented, and run to the end."""
        for arguments in (["--unlock"], []):
            if self.start(*arguments).wait():
                raise AssertionError((self.folder / "output.txt").read_text()[-4000:])
        while alive(self.sessions):  # what a killed main process left running
            time.sleep(0.05)

    def artifacts(self) -> dict[str, str]:
        """SHA-256 of every file under results/, by its path."""
        found = sorted(path for path in (self.folder / "results").rglob("*") if path.is_file())
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}

    def temporaries(self) -> list[Path]:
        """Files that are being written."""
        return [path for top in ("results", "work") for path in (self.folder / top).rglob(".*.*") if path.is_file()]


def alive(sessions: list[int], containing: str = "") -> list[int]:
    """Ids of the processes of these sessions whose command contains the text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(session) in sessions and state != "Z" and containing in command:
                found.append(int(entry.name))
    return found


def kill(copy: Copy, target: str, rng: random.Random, longest: float) -> str:
    """Start the workflow, kill the target at a random moment; returns what was killed, or "" if it ended before."""
    process = copy.start()
    started = time.monotonic()
    moment = started + rng.uniform(0, longest)
    group = [process.pid]

    def workers() -> list[int]:
        return alive(group, "/bin/cmer ")

    ready: dict[str, Callable[[], bool]] = {
        "main": lambda: time.monotonic() > moment,
        "group": lambda: time.monotonic() > moment,
        "worker": lambda: time.monotonic() > moment and bool(workers()),
        "training": lambda: any((copy.folder / "work/train").glob("*/state.pt")),
        "write": lambda: time.monotonic() > moment and bool(copy.temporaries()),
    }
    while not ready[target]():
        if process.poll() is not None:
            return ""
        assert time.monotonic() < started + LONGEST, "the workflow does not end"
        time.sleep(0.0005 if target == "write" else 0.02)
    if target == "write":  # it lasts milliseconds
        os.killpg(process.pid, signal.SIGKILL)
    if target == "training":
        time.sleep(rng.uniform(0, 1))
    jobs = sorted({command(pid) for pid in alive(group)} - {""})
    if target in ("main", "worker"):
        os.kill(process.pid if target == "main" else workers()[0], signal.SIGKILL)
    elif target != "write":
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = [path.name for path in copy.temporaries()]
    return f"at {time.monotonic() - started:.1f} s during {jobs}, leaving {left}"


def command(pid: int) -> str:
    """`cmer verb` of a process, or ""."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    verbs = [words[i + 1] for i, word in enumerate(words[:-1]) if word.endswith("/bin/cmer")]
    return f"cmer {verbs[0]}" if verbs else ""


def runs(kills: int, seed: int, folder: Path) -> Iterator[list[str]]:
    """Differences of every broken run from the unbroken one, none where it is right; a run takes several kills.

    Args:
        kills: in all.
        seed: of targets and moments.
        folder: where the copies go.
    """
    whole = Copy.make(folder / "unbroken")
    started = time.monotonic()
    whole.finish()
    longest = time.monotonic() - started
    expected = whole.artifacts()
    print(f"unbroken: {len(expected)} files in {longest:.0f} s", flush=True)
    rng, struck = random.Random(seed), 0
    while struck < kills:
        copy = Copy.make(folder / f"kills_from_{struck + 1}")
        for _ in range(KILLS_A_RUN):
            target = TARGETS[struck % len(TARGETS)]
            if what := kill(copy, target, rng, longest * 0.6) if struck < kills else "":
                struck += 1
                print(f"kill {struck}: {target} {what}", flush=True)
                copy.start("--unlock").wait()
        copy.finish()
        made = copy.artifacts()
        different = [path for path in sorted(expected | made) if expected.get(path) != made.get(path)]
        print(f"run: {len(made)} files, {len(different)} differ {different or ''}", flush=True)
        yield different
        shutil.rmtree(copy.folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        outcomes = list(runs(options.kills, options.seed, Path(temporary)))
    print(
        f"{options.kills} kills in {len(outcomes)} runs: {sum(map(bool, outcomes))} runs differ from the unbroken one"
    )
    sys.exit(any(outcomes))
