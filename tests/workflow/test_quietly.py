"""`make demo` shows one line of progress; Snakemake's log goes to a file."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from workflow_project import ROOT

QUIETLY = [sys.executable, str(ROOT / "scripts" / "quietly")]
LOG = """Job stats:
total       2

rule train:
    jobid: 1
Finished jobid: 1 (Rule: train)
1 of 2 steps (50%) done
localrule table:
    jobid: 0
Finished jobid: 0 (Rule: table)
2 of 2 steps (100%) done
"""


def quietly(log: Path, script: str) -> subprocess.Popen[str]:
    command = [*QUIETLY, str(log), sys.executable, "-u", "-c", script]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}
    )


def test_the_log_is_kept_and_a_line_counts_the_steps(tmp_path: Path) -> None:
    done = quietly(tmp_path / "logs/demo.log", f"print({LOG!r}, end='')")
    out, shown = done.communicate(timeout=60)
    assert (done.returncode, out) == (0, "")
    assert (tmp_path / "logs/demo.log").read_text() == LOG
    assert "steps: 2/2" in shown and "rule train" not in shown and str(tmp_path / "logs/demo.log") in shown


def test_a_failure_has_its_status_and_the_end_of_the_log(tmp_path: Path) -> None:
    done = quietly(tmp_path / "log", "print('total 3'); print('cmer: the disk is full'); raise SystemExit(5)")
    _, shown = done.communicate(timeout=60)
    assert done.returncode == 5 and "cmer: the disk is full" in shown


def test_an_interruption_reaches_the_command(tmp_path: Path) -> None:
    script = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in children of a shell's background job
print('total 3', flush=True)
try: time.sleep(60)
except KeyboardInterrupt: raise SystemExit('unlocked')
"""
    running, log = quietly(tmp_path / "log", script), tmp_path / "log"
    while not log.exists() or "total" not in log.read_text():
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 1 and "unlocked" in log.read_text()
