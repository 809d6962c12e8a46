"""Of the processes of a training that fails, the first one says why; torchrun reads its file."""

import time

from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from cmer.training.failure import is_first_to_fail


def test_the_first_of_the_processes_tells_torchrun_its_reason(tmp_path, monkeypatch) -> None:
    start, found = int(time.time()), []
    for attempt in range(2):
        for rank in range(2):
            file = tmp_path / f"attempt_{attempt}" / str(rank) / "error.json"
            file.parent.mkdir(parents=True)
            monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
            found.append((is_first_to_fail(f"reason {attempt}"), file.is_file()))
        told = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(file.parents[1] / "0" / "error.json"))
        assert told.message["message"] == f"reason {attempt}"
        assert start <= told.timestamp <= time.time()
    assert found == [(True, True), (False, False)] * 2


def test_a_training_in_one_process_has_no_other_to_wait_for(monkeypatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    assert is_first_to_fail("reason") and is_first_to_fail("reason")
