"""Every value of every config, replaced by one that cannot be meant: a sentence that names its key, or a sound plan.

CMER_CONFIG_EXAMPLES=20000 pytest tests/test_config_damage.py takes longer and looks further.
"""

import copy
import datetime
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmer.config.base import ConfigError, validate_json
from cmer.config.experiment import Config, parse
from cmer.config.reading import parse_yaml, read_settings
from cmer.config.runs import RunSpec
from cmer.errors import UserError
from cmer.plan_report import ReportPlan

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]
EXAMPLES = int(os.environ.get("CMER_CONFIG_EXAMPLES", "150"))
Path_ = tuple[str | int, ...]

MINE = """
mine:
  source: folder
  title: Mine
  root: r
  labels: {rule: id, classes: [a, b], per_class: 3}
  merge: {a: b}
  split: {val: 0.1, test: 0.2, seed: 1}
  raster: {bands: [3, 2, 1], stretch: {kind: range, low: 0, high: 3000}}
fetched:
  source: rsicd
  sources: [{kind: local, path: x}, {kind: hub, repo: a/b, revision: c, files: [d]}, {kind: url, url: "https://a.b"}]
"""


def examples(share: float = 1.0) -> settings:
    """The same examples at every run: a failure is a change of the code, not luck."""
    return settings(
        max_examples=max(1, round(EXAMPLES * share)), derandomize=EXAMPLES <= 1000, deadline=None, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip


def configs() -> list[dict[str, Any]]:
    found = [parse_yaml(file.read_text(), file.name) for file in FILES]
    return [*found, found[0] | {"datasets": found[0]["datasets"] | parse_yaml(MINE, "mine")}]


def places(data: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The paths of all values within `data`."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


CONFIGS = configs()
PLACES = [(number, path) for number, data in enumerate(CONFIGS) for path in places(data)]
ODD = [
    None, True, False, math.nan, math.inf, -math.inf, -1, 0, 1, -0.0, 0.5, 1e-320, 1e308, 10**9, 2**31, 2**32, 2**64,
    10**5000, "", " ", ".", "..", "0", "010", "1:30", "1e-3", "no", "Nan", "inf", "*", "[", "x" * 300, "x" * 20_000,
    "\0", "a\nb", "\ud800", "{label}", "é", [], [None], [[]], [1, 1], ["a", "a"], {}, {"a": {"b": [1]}}, {1: 2},
    {None: None}, {"x" * 20_000: 1}, {"\n": 1}, datetime.date(2020, 1, 1), b"x", {1, 2}, (1, 2),
]  # fmt: skip
DEEP: list[Any] = []
for _ in range(2000):
    DEEP = [DEEP]
ODD.append(DEEP)


def damaged(data: Any, path: Path_, value: Any) -> Any:
    """A copy of `data` with the value at `path` replaced."""
    if not path:
        return value
    copied = copy.copy(data)
    copied[path[0]] = damaged(copied[path[0]], path[1:], value)
    return copied


def at(data: Any, path: Path_) -> Any:
    for key in path:
        data = data[key]
    return data


def outcome(data: Any, path: Path_) -> Config | None:
    """The config; None if it is refused by a sentence that names the innermost key, or the one around it."""
    try:
        return parse(data)
    except ConfigError as error:
        head, *sentences = str(error).split("\n")
        keys = [key for key in path if isinstance(key, str)][-2:]
        assert head == "config is not valid:" and sentences
        assert all(len(sentence.removeprefix("  - ")) > 10 and sentence.isprintable() for sentence in sentences)
        assert any(key.rpartition(".")[2] in str(error) for key in keys), f"{path}: {error}"
        assert len(str(error)) < 100_000
        return None


def finite(text: str) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} in {text}")

    return json.loads(text, parse_constant=refuse)


def check_plan(config: Config) -> None:
    """Every spec is finite JSON, and the spec of a run gives the same spec again."""
    plan = ReportPlan(config)
    specs = [plan.data_spec(name) for name in config.datasets] + [plan.prompt_spec(name) for name in config.datasets]
    specs += [plan.features_spec(data, tower) for data in list(config.datasets)[:1] for tower in config.backbones]
    specs += [plan.table_spec(name) for name in config.tables] + [plan.figure_spec(name) for name in config.figures]
    for run in config.expanded[:3]:
        for dataset in run.datasets[:1]:
            spec = plan.run_spec(run.name, dataset, str(config.seeds[0]))
            read = validate_json(RunSpec, spec, "--spec")
            assert validate_json(RunSpec, read.model_dump_json(), "--spec") == read
            specs.append(spec)
    for spec in specs:
        assert json.dumps(finite(spec), allow_nan=False, sort_keys=True, ensure_ascii=False) == spec


@examples()
@given(place=st.sampled_from(PLACES), value=st.sampled_from(ODD))
def test_a_value_that_cannot_be_meant_is_refused_by_name_or_harmless(place: tuple[int, Path_], value: Any) -> None:
    number, path = place
    config = outcome(damaged(CONFIGS[number], path, value), path)
    if config is not None:
        check_plan(config)


@examples(0.5)
@given(place=st.sampled_from([(n, p) for n, p in PLACES if type(at(CONFIGS[n], p)) in (int, float, bool)]))
def test_no_type_stands_for_another(place: tuple[int, Path_]) -> None:
    number, path = place
    value = at(CONFIGS[number], path)
    if "sweep" in path:  # its name may be the same
        return
    for other in (
        str(value),
        [value],
        {"a": value},
        None if path[-1] not in ("train_images", "validation_images", "micro_batch") else "x",
    ):
        assert outcome(damaged(CONFIGS[number], path, other), path) is None
    swapped = int(value) if isinstance(value, bool) else bool(value)
    assert outcome(damaged(CONFIGS[number], path, swapped), path) is None


LISTS = [(n, p) for n, p in PLACES if isinstance(at(CONFIGS[n], p), list)]


@pytest.mark.parametrize(("number", "path"), LISTS, ids=str)
def test_lists_hold_something_and_nothing_twice(number: int, path: Path_) -> None:
    value = at(CONFIGS[number], path)
    if path[-1] == "exclude":
        assert parse(damaged(CONFIGS[number], path, ["twins"])).datasets
        assert outcome(damaged(CONFIGS[number], path, ["twins", "twins"]), path) is None
        return
    # Of these there may be none: blocks to store, profiles without timing or with stored features, queries to draw.
    if path[-1] not in ("blocks", "text_blocks", "count_only", "stored", "queries"):
        assert outcome(damaged(CONFIGS[number], path, []), path) is None
    if path[-1] != "bands" and value and not isinstance(value[0], dict):
        assert outcome(damaged(CONFIGS[number], path, [*value, value[0]]), path) is None


PIECES = [
    "", "\t", "  ", "\n", ":", "{", "}", "[", "]", '"', "'", "&a ", "*a", "!!int ", "#", "? ", "\0", "é", "%", "@",
    "010", "1_0", "<<: *a\n", "%YAML 1.1\n---\n", "seeds: 1\n",
]  # fmt: skip
EDITS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 40), st.sampled_from(PIECES)), min_size=1, max_size=3)


@examples()
@given(number=st.integers(0, len(FILES) - 1), edits=EDITS)
def test_a_damaged_file_is_refused_by_name_or_read(
    tmp_path_factory: pytest.TempPathFactory, number: int, edits: list[tuple[int, int, str]]
) -> None:
    text = FILES[number].read_text()
    for place, length, piece in edits:
        place %= len(text)
        text = text[:place] + piece + text[place + length :]
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_text(text)
    try:
        data = read_settings([file])
    except UserError as error:
        assert str(error).startswith(str(file)) and len(str(error)) > len(str(file)) + 10
        return
    try:
        check_plan(parse(data))
    except ConfigError as error:
        assert str(error).startswith("config is not valid:\n  - ")
