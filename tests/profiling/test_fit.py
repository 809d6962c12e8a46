"""Ways to train on a machine, against the profiler, the prices and what an extraction writes."""

import re

import pytest
import torch
import yaml
from profiling_cases import SMALL, spec
from typer.testing import CliRunner

from cmer.backbones.tiny.options import TinyOptions
from cmer.cli.plan import app, size
from cmer.config.experiment import parse
from cmer.errors import UserError
from cmer.profiling.counting import Towers
from cmer.profiling.fit import LIBRARIES, Fit, Machine
from cmer.profiling.measure import saved_bytes
from cmer.profiling.price import prices
from cmer.profiling.shapes import Shadow
from cmer.profiling.step import Model, Step
from cmer.registry import METHOD_OPTIONS

TOLERANCE = 0.01
PLENTY = Machine(10**12, 10**12)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def fit():
    return Fit(TinyOptions(kind="tiny", printed="tiny"), "rsicd", batch=64)


@pytest.mark.parametrize("text", ["lora", "side_branch"])
def test_kept_bytes_are_those_that_the_profiler_measures(text) -> None:
    options = METHOD_OPTIONS.get("cmer").model_validate(SMALL | {"text": text})
    shadow, asked = Shadow("cmer", options, Towers(TinyOptions(kind="tiny"))), spec("cmer", batches=[4, 8])
    row = asked.rows[0].model_copy(update={"options": options})
    model = Model.build(asked, row)
    for batch, micro_batch, stored in ((4, 4, False), (8, 2, False), (8, 2, True), (4, 1, True)):
        case = row.model_copy(update={"micro_batch": micro_batch, "stored": stored})
        step = Step(model, asked, case, "today", batch)
        measured = saved_bytes(step.run, step.kept(), step)
        assert shadow.kept_bytes(batch, micro_batch, stored) == pytest.approx(measured, rel=TOLERANCE), case
    modules = (model.backbone, model.method)
    tensors = {t for module in modules for t in (*module.parameters(), *module.buffers())}
    assert shadow.weight_bytes(True) == sum(tensor.nbytes for tensor in tensors)


def test_what_is_stored_has_the_bytes_of_its_arrays(fit) -> None:
    (bfloat16, int8, online), (last, *_) = fit.choices(PLENTY)
    pooled = 10921 * 32 * 4 + 2 * 54605 * (32 * 4 + 8) + 8
    assert bfloat16.disk == pooled + 10921 * 2 * 17 * 64 * 2
    assert int8.disk == pooled + 10921 * 2 * 17 * (64 + 4)
    assert last.disk == pooled + 10921 * 17 * 64 * 2
    assert (bfloat16.blocks, last.blocks, online.disk) == ([0, 1], [1], 0)
    assert bfloat16.micro_batch is online.micro_batch is None


def test_parts_are_as_large_as_memory_allows_and_their_config_is_valid(fit) -> None:
    least, most = (next(fit.choices(Machine(memory, 10**12)))[0] for memory in (0, 10**12))
    assert least.micro_batch == 1 and most.micro_batch is None
    assert LIBRARIES < least.memory < most.memory
    between = Machine((least.memory + most.memory) // 2, 10**12)
    way = next(fit.choices(between))[0]
    assert way.fits(between) and 1 < way.micro_batch < 64
    larger = next(fit.choices(Machine(most.memory - 1, 10**12)))[0]
    assert larger.micro_batch == 32, "the largest power of two below the batch"
    assert least.kept < way.kept < most.kept
    for chosen in (way, most, next(fit.choices(PLENTY))[2]):
        config = parse(yaml.safe_load(fit.lines(chosen)))
        (run,) = config.expanded
        assert run.training.micro_batch == chosen.micro_batch and run.training.inputs == chosen.engine
        assert run.training.batch_size == 64 and run.datasets == ["rsicd"]
        features = config.backbones[run.backbone].features
        assert features.dtype == (chosen.dtype or "float32")
        assert features.text_blocks == ([] if chosen.dtype else None)


def test_arithmetic_is_that_of_the_price(fit) -> None:
    stored, _, online = next(fit.choices(PLENTY))
    rows = prices(parse(yaml.safe_load(fit.lines(stored))))
    assert stored.macs == pytest.approx(sum(row.macs for row in rows)) and len(rows) == 2
    assert online.macs == pytest.approx(prices(parse(yaml.safe_load(fit.lines(online))))[0].macs)
    parts = next(fit.choices(Machine(0, 0)))[0]
    again = rows[0].gmacs_forward * 1e9 * rows[0].epochs * rows[0].pairs * 63 / 64
    assert parts.macs - stored.macs == pytest.approx(again)


def call(*arguments):
    result = CliRunner().invoke(app, ["--backbone", "tiny", "--dataset", "rsicd", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_table_and_the_config_of_the_best_way(tmp_path) -> None:
    out = tmp_path / "planned.yaml"
    printed = call("--memory", "8GB", "--disk", "50MB", "--batch", "64", "--out", str(out))
    assert re.search(r"stored +0, 1 +bfloat16 .* no: disk \+ 0\.014", printed)
    assert re.search(r"stored +0, 1 +int8 .* yes", printed)
    assert printed.endswith(out.read_text()) and parse(yaml.safe_load(out.read_text()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "8"], "--memory 8: give a number and a unit, such as 8GB"),
        (["--memory", "8GB", "--disk", "many"], "--disk many: give a number"),
        (["--memory", "8GB", "--backbone", "lite2"], "lite2"),
        (["--memory", "8GB", "--dataset", "nothing"], "nothing"),
        (
            ["--memory", "1MB", "--disk", "1MB", "--batch", "4"],
            r"cmer on tiny, rsicd does not fit: it needs at least 1\.\d GB of memory online, or 1\.\d GB of memory and "
            r"0\.\d+ GB of disk",
        ),
    ],
)
def test_what_cannot_be_planned_is_named(arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        call(*arguments)


def test_sizes() -> None:
    given = ("8GB", "7.5 GiB", "500MB", "2TB", "12kB", "9B")
    assert [size("--x", text) for text in given] == [8 * 10**9, 15 * 2**29, 5 * 10**8, 2 * 10**12, 12_000, 9]
