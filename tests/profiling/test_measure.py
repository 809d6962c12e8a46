"""Readings of the system and settings of its allocator, and counts without weights."""

from types import SimpleNamespace

import pytest
import torch
from profiling_cases import spec

from cmer.errors import UserError
from cmer.profiling import measure
from cmer.profiling.bench import Bench
from cmer.profiling.measure import keep_freed_memory, peak_bytes, release
from cmer.profiling.parameters import count_parameters
from cmer.training.loop import Trainer


@pytest.fixture
def libc(monkeypatch):
    """What glibc's mallopt and malloc_trim are called with."""
    calls = SimpleNamespace(options={}, trimmed=[])
    library = SimpleNamespace(mallopt=calls.options.__setitem__, malloc_trim=calls.trimmed.append)
    monkeypatch.setattr(measure, "ctypes", SimpleNamespace(CDLL=lambda _: library))
    return calls


@pytest.mark.parametrize(("keep", "options"), [(True, {-3: 2**25, -1: 2**26}), (False, {-3: 2**16, -1: 0})])
def test_freed_memory_is_kept_or_returned(libc, keep, options) -> None:
    """By the numbers of M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in malloc.h; glibc adjusts the first up to 32 MiB."""
    keep_freed_memory(keep)
    assert libc.options == options and libc.trimmed == []


def test_release_leaves_no_free_memory(libc) -> None:
    release()
    assert libc.trimmed == [0] and libc.options == {}


def test_other_libraries_than_glibc_are_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(measure, "ctypes", SimpleNamespace(CDLL=lambda _: SimpleNamespace()))
    keep_freed_memory(True)
    release()


def test_memory_is_returned_for_the_peak_and_kept_for_the_speed(monkeypatch) -> None:
    kept = []
    monkeypatch.setattr("cmer.profiling.bench.keep_freed_memory", kept.append)
    asked = spec("linear_probe", warmup=1)
    bench = Bench(asked, asked.rows[0])
    assert kept == [False]
    bench.time("today", 2, 1)
    assert kept == [False, True]
    Bench(spec("linear_probe", count_only=True), asked.rows[0])
    assert kept == [False, True, True]


@pytest.mark.skipif(torch.cuda.is_available(), reason="resident memory of a CPU")
def test_the_peak_is_the_rise_of_the_high_water_mark_after_its_reset(monkeypatch) -> None:
    """/proc/<pid>/status has units of 1,024 bytes that it calls kB; "5" in clear_refs resets VmHWM (proc(5))."""
    files = {"/proc/self/status": "VmPeak:\t  9000 kB\nVmHWM:\t  5000 kB\nVmRSS:\t  4000 kB\n"}

    class File(str):
        def read_text(self):
            return files[self]

        def write_text(self, text):
            assert (self, text) == ("/proc/self/clear_refs", "5")
            files["/proc/self/status"] = files["/proc/self/status"].replace("5000", "4000")

    monkeypatch.setattr(measure, "Path", File)
    status = "VmPeak:\t  9000 kB\nVmHWM:\t  4700 kB\nVmRSS:\t  4000 kB\n"
    assert peak_bytes(lambda: files.update({"/proc/self/status": status})) == (700 * 1024, None)
    files.clear()  # another system
    monkeypatch.setattr(File, "write_text", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert peak_bytes(lambda: None) == (None, None)


@pytest.mark.parametrize(("setting", "named"), [("paper_like", "math"), ("today", "sdpa")])
def test_a_row_names_the_attention_that_its_steps_have(monkeypatch, setting, named) -> None:
    asked, fused, step = spec("linear_probe", warmup=1), [], Trainer.step

    def noted(self, batch):
        fused.append((torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()))
        return step(self, batch)

    bench = Bench(asked, asked.rows[0])
    assert bench.count(setting, 2, False)["attention"] == named
    monkeypatch.setattr(Trainer, "step", noted)
    bench.time(setting, 2, 1)
    assert fused == [(named == "sdpa",) * 2] * 2


def test_a_linear_probe_counts_two_affine_maps() -> None:
    assert count_parameters("tiny", "linear_probe") == 2 * (32 * 32 + 32)


@pytest.mark.parametrize(
    ("backbone", "method", "message"),
    [("tiny", "cmre", "unknown method 'cmre'.*cmer"), ("ViT-B-23", "cmer", "ViT-B-23.*ViT-B-32")],
)
def test_what_cannot_be_counted_is_named(backbone, method, message) -> None:
    with pytest.raises(UserError, match=message):
        count_parameters(backbone, method)
