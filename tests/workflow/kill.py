"""Kill the workflow at random moments, start it again as the profiles' README says, and compare every file it makes.

    python tests/workflow/kill.py --kills 20

Prints a line a kill, a verdict a run and a summary, and ends with status 1 where a run lost or changed anything.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from workflow_project import Project

CHANGES = Path(__file__).with_name("kill.yaml")
TARGETS = ("main", "group", "worker", "training", "write")
KILLS_A_RUN = 5
CMER = r" -m cmer (?=[a-z])"
"""Regular expression of what precedes the subcommand in the command line of a worker, but not of its shell."""
LONGEST = 900.0
"""Seconds after which a run that neither ends nor meets its kill is an error."""

Stamped = set[tuple[Path, int]]
"""Files with the times of their last change (ns), which tell new ones from those that an earlier kill left."""


@dataclass
class Copy:
    """A copy of the project that runs the workflow in sessions of its own, so that all of its processes are known.

    Attributes:
        folder: of the copy.
        sessions: in which something may be alive.
        saved: of trainings that were killed: the length of the output then, epochs done and steps of the next one.
    """

    folder: Path
    sessions: list[int] = field(default_factory=list)
    saved: list[tuple[int, int, int]] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path) -> Copy:
        """A copy that saves the state of a training at every step: its trainings last seconds."""
        Project.copy(folder)
        config = yaml.safe_load((folder / "config/ci.yaml").read_text()) | yaml.safe_load(CHANGES.read_text())
        (folder / "config/kill.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        loop = folder / "cmer/training/loop.py"
        before, setting, after = loop.read_text().partition("SAVE_EVERY = 30.0")
        assert setting
        loop.write_text(f"{before}SAVE_EVERY = 0.0{after}")
        return cls(folder)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(self.folder)}
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "config/kill.yaml", *arguments]
        with (self.folder / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self.sessions.append(process.pid)
        return process

    def start_again(self) -> subprocess.Popen[bytes]:
        """As documented."""
        self.check(self.start("--unlock"))
        return self.start()

    def check(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a process that must succeed."""
        if process.wait():
            raise AssertionError((self.folder / "output.txt").read_text()[-4000:])

    def finish(self) -> None:
        """Start again, and run to the end."""
        self.check(self.start_again())
        self.wait()

    def kill(self) -> None:
        """Kill all processes at once, also those that outlived an earlier kill."""
        for session in self.sessions:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        """Until nothing is alive: a process id may name another process later."""
        while alive(self.sessions):
            time.sleep(0.02)
        self.sessions.clear()

    def artifacts(self) -> dict[str, str]:
        """SHA-256 of every file under results/, by its path."""
        found = sorted(path for path in (self.folder / "results").rglob("*") if path.is_file())
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}

    def states(self) -> Stamped:
        """Of unfinished trainings."""
        return stamped((self.folder / "work/train").glob("*/state.pt"))

    def temporaries(self) -> Stamped:
        """Files that are being written, or were when their writer was killed."""
        walks = [os.walk(self.folder / top) for top in ("results", "work")]
        files = [Path(top, name) for walk in walks for top, _, names in walk for name in names]
        return stamped(path for path in files if path.match(".*.*"))

    def note_states(self) -> None:
        """Remember where the trainings stand that were killed."""
        length = (self.folder / "output.txt").stat().st_size
        for path, _ in self.states():
            state = torch.load(path, weights_only=True)
            self.saved.append((length, state["epoch"], state["step"]))

    def lost(self) -> list[str]:
        """The remembered places from which no training went on."""
        output = (self.folder / "output.txt").read_bytes()
        places = [(length, f"(epochs done: {epoch}, steps: {step})") for length, epoch, step in self.saved]
        return [
            f"training {place}" for length, place in places if f"resuming {place}\n".encode() not in output[length:]
        ]


@dataclass
class Trial:
    """What the kills did.

    Attributes:
        struck: kills by their target.
        states: of killed trainings, which went on from there, and those of them within an epoch.
        differences: of every run from the unbroken one, none where it is right; a run takes several kills.
    """

    struck: Counter[str] = field(default_factory=Counter)
    states: int = 0
    within_an_epoch: int = 0
    differences: list[list[str]] = field(default_factory=list)

    def __str__(self) -> str:
        targets = ", ".join(f"{number} {target}" for target, number in sorted(self.struck.items()))
        return (
            f"{self.struck.total()} kills: {targets}\n"
            f"{self.states} states of killed trainings, {self.within_an_epoch} of them within an epoch\n"
            f"{len(self.differences)} runs compared with the unbroken one, {sum(map(bool, self.differences))} differ"
        )


def stamped(paths: Iterable[Path]) -> Stamped:
    found = set()
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found.add((path, path.stat().st_mtime_ns))
    return found


def alive(sessions: list[int], pattern: str = "") -> dict[int, str]:
    """The processes of these sessions whose command matches the pattern: id → command."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(session) in sessions and state != "Z" and re.search(pattern, command):
                found[int(entry.name)] = command
    return found


def kill(copy: Copy, target: str, moment: float) -> str:
    """Start the workflow and kill the target, as soon after `moment` (seconds) as it is there; again if it is missed.

    Returns:
        What was hit, or "" if the workflow ended before.
    """
    states, temporaries = copy.states(), copy.temporaries()
    process = copy.start_again()
    own, started = [process.pid], time.monotonic()
    found: dict[str, Callable[[], Collection[object]]] = {
        "main": lambda: own,
        "group": lambda: own,
        "worker": lambda: alive(own, CMER),
        "training": lambda: copy.states() - states and alive(own, f"{CMER}train "),
        "write": lambda: copy.temporaries() - temporaries,
    }
    jobs: list[str] = []
    while process.poll() is None:
        seconds = time.monotonic() - started
        assert seconds < LONGEST, "the workflow does not end"
        if seconds > moment and (there := found[target]()):
            if target != "write":  # which lasts milliseconds
                jobs = sorted({re.split(CMER, command)[1].split()[0] for command in alive(own, CMER).values()})
            if target not in ("main", "worker"):
                copy.kill()
                break
            with contextlib.suppress(ProcessLookupError):  # a worker that has just ended; there will be another
                os.kill(next(iter(there)), signal.SIGKILL)
                break
        time.sleep(0.0005 if target == "write" else 0.02)
    else:
        copy.check(process)
        return ""
    if process.wait() == 0:
        return ""
    if target != "main":  # which leaves its jobs behind, at work
        copy.wait()
        copy.note_states()
    left = {"training": copy.states() - states, "write": copy.temporaries() - temporaries}
    if not left.get(target, True):
        return kill(copy, target, moment)
    names = sorted(str(path.relative_to(copy.folder)) for path, _ in left["training"] | left["write"])
    return f"at {seconds:.1f} s during {jobs}, leaving {names}"


def trial(kills: int, seed: int, folder: Path) -> Trial:
    """Compare runs that were killed with one that was not.

    Args:
        kills: in all; of every five, one a target.
        seed: of targets and moments.
        folder: where the copies go.
    """
    whole = Copy.make(folder / "unbroken")
    started = time.monotonic()
    whole.finish()
    length = time.monotonic() - started
    expected = whole.artifacts()
    print(f"unbroken: {len(expected)} files in {length:.0f} s", flush=True)
    rng, outcome = random.Random(seed), Trial()
    targets: list[str] = []
    while outcome.struck.total() < kills:
        assert len(outcome.differences) <= kills, "the kills miss their targets"
        copy = Copy.make(folder / f"run_{len(outcome.differences) + 1}")
        for _ in range(min(KILLS_A_RUN, kills - outcome.struck.total())):
            targets = targets or rng.sample(TARGETS, len(TARGETS))
            what = kill(copy, targets[-1], rng.uniform(0, length / 2))
            if not what:
                break
            outcome.struck[targets[-1]] += 1
            print(f"kill {outcome.struck.total()}: {targets.pop()} {what}", flush=True)
        copy.finish()
        made, lost = copy.artifacts(), copy.lost()
        different = [path for path in sorted(expected | made) if expected.get(path) != made.get(path)]
        print(f"run: {len(made)} files, {len(different)} differ {different or ''}, lost {lost}", flush=True)
        outcome.differences.append(different + lost)
        outcome.states += len(copy.saved)
        outcome.within_an_epoch += sum(step > 0 for _, _, step in copy.saved)
        shutil.rmtree(copy.folder)
    return outcome


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        outcome = trial(options.kills, options.seed, Path(temporary))
    print(outcome)
    sys.exit(any(outcome.differences))
