"""A disk that fills up while a training runs: a sentence, nothing lost, and the same bytes once there is room."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_training import extract_features, spec, train_arguments

FULL = """
import resource
import cmer.training.loop as loop
from cmer.cli.main import main
end_epoch = loop.Trainer.end_epoch
def fill_the_disk(self):
    end_epoch(self)
    if self.state.epoch == EPOCH:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
loop.Trainer.end_epoch = fill_the_disk
main()
"""


@pytest.mark.parametrize(("epoch", "file"), [(1, "state.pt"), (3, "checkpoint.safetensors")])
def test_a_full_disk_loses_nothing(prepared, tmp_path, monkeypatch, epoch, file) -> None:
    monkeypatch.chdir(tmp_path)
    extract_features(prepared)
    run = spec(prepared)

    def train(code: str, out: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *train_arguments(prepared, run, out)], text=True, stderr=subprocess.PIPE
        )

    failed = train(FULL.replace("EPOCH", str(epoch)), "checkpoint.safetensors")
    assert failed.returncode == 1
    assert f"{file}: File too large; free disk space" in failed.stderr and "Traceback" not in failed.stderr
    assert not Path("checkpoint.safetensors").exists()
    assert [path.name for path in Path("work/train").rglob("*.*")] == ["state.pt"]
    plain = "from cmer.cli.main import main; main()"
    resumed = train(plain, "checkpoint.safetensors")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming (epochs done: {epoch}, steps: 0)" in resumed.stderr
    whole = train(plain, "whole.safetensors")
    assert whole.returncode == 0 and "resuming" not in whole.stderr
    assert Path("checkpoint.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()
