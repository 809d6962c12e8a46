"""A SLURM cluster of one node, without accounting, from slurm-wlm and munge of Debian, in a folder of its own.

python tests/workflow/slurm_cluster.py COMMAND ...   runs a command with that cluster, then takes it down
"""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")

# The node claims more memory than it may have: what a job asks for is counted, not measured. Devices that stand for
# GPUs are only handed out. Jobs that are over their time get five seconds to end.
CONFIG = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=300
SchedulerParameters=batch_sched_delay=0,sched_interval=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=131072 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
"""


def missing() -> list[str]:
    """The daemons that are not installed."""
    return [name for name in DAEMONS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")]


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def configure(folder: Path) -> None:
    ports, host = free_ports(), socket.gethostname().partition(".")[0]
    settings = CONFIG.format(
        host=host, ctld_port=ports[0], slurmd_port=ports[1], user=getpass.getuser(), folder=folder, cpus=os.cpu_count()
    )
    folder.chmod(0o711)  # munged asks that all may reach its socket
    (folder / "slurm.conf").write_text(settings)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\nName=gpu File=/dev/full\n")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)


def commands(folder: Path, settings: Path) -> Path:
    """A folder with an `srun` that finds the cluster: a job of Snakemake's drops SLURM_CONF from its environment."""
    srun = folder / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={settings} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    return srun.parent


@contextmanager
def daemon(folder: Path, *command: str | Path) -> Iterator[None]:
    """A daemon in the foreground; its output is in the folder. It is ended with the block."""
    with (folder / f"{command[0]}.log").open("w") as log:
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
        if state.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(log.read_text() for log in folder.glob("*.log"))
    raise RuntimeError(f"the SLURM node is not idle after a minute: {state.stdout}{state.stderr}\n{logs}")


@contextmanager
def slurm_cluster() -> Iterator[dict[str, str]]:
    """A running cluster: the environment in which `sbatch`, `squeue` and `scancel` speak to it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm")))
        configure(folder)
        names = {f"--{name}-file": folder / f"munge.{name}" for name in ("key", "log", "pid", "seed")}
        options = [f"{option}={path}" for option, path in names.items()]
        stack.enter_context(daemon(folder, "munged", "--foreground", f"--socket={folder / 'munge.socket'}", *options))
        settings = folder / "slurm.conf"
        stack.enter_context(daemon(folder, "slurmctld", "-D", "-i", "-f", settings))
        stack.enter_context(daemon(folder, "slurmd", "-D", "-f", settings))
        path = f"{commands(folder, settings)}:{os.environ['PATH']}"
        environment = {**os.environ, "SLURM_CONF": str(settings), "PATH": path}
        wait_until_idle(environment, folder)
        yield environment


if __name__ == "__main__":
    with slurm_cluster() as cluster:
        sys.exit(subprocess.run(sys.argv[1:], env=cluster).returncode)
