"""Values that cannot be meant, numbers that would allocate too much, and how config files are read."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_config import MINIMAL, changed
from typer.testing import CliRunner

from cmer.cli.models import app
from cmer.config.backbones import FeatureOptions
from cmer.config.base import ConfigError, validate_json
from cmer.config.datasets import Raster
from cmer.config.experiment import parse, read
from cmer.config.reading import parse_yaml, read_settings
from cmer.config.runs import RunSpec
from cmer.errors import UserError

CMER = ("runs", "cmer", "options")
OWN = {"source": "folder", "title": "x", "root": "r"}
DRAWN = {"source": "demo", "images_per_class": 1000}
CLIP = {"kind": "open_clip", "model": "ViT-B-32", "quick_gelu": True}
HUB = {"kind": "hub", "repo": "a/b", "revision": "main", "files": ["x.zip"]}


def source(**settings: Any) -> dict[str, Any]:
    return {"source": "rsicd", "sources": [settings]}


def stretched(kind: str, low: float, high: float) -> dict[str, Any]:
    return OWN | {"raster": {"bands": [3, 2, 1], "stretch": {"kind": kind, "low": low, "high": high}}}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed("seeds", to=[2**32]), ["seeds.0", "less than 4294967296"]),
        (changed("seeds", to=[True]), ["seeds.0", "valid integer", "True"]),
        (changed("seeds", to=["1"]), ["seeds.0", "valid integer", "'1'"]),
        (changed("seeds", to=[]), ["seeds", "at least one value"]),
        (changed("training", to={"epochs": 3.0}), ["training.epochs", "valid integer"]),
        (changed("training", to={"epochs": 10**6}), ["training.epochs", "100000"]),
        (changed("training", to={"lr": math.nan}), ["training.lr", "finite", "nan"]),
        (changed("training", to={"lr": "1e-3"}), ["training.lr", "valid number", "'1e-3'"]),
        (changed("training", to={"lr": 1e30}), ["training.lr", "less than or equal to 10"]),
        (changed("training", to={"ema": 1.0}), ["training.ema", "less than 1"]),
        (changed("training", to={"threads": 10**6}), ["training.threads", "1024"]),
        (changed("training", to={"processes": 10**6, "batch_size": 512}), ["training.processes", "1024"]),
        (changed("training", to={"batch_size": 10**9}), ["training.batch_size", "65536"]),
        (changed("runs", "cmer", "training", to={"lr": math.inf}), ["runs.cmer.training.lr", "finite"]),
        (changed(*CMER, to={"focus_adapter": "yes"}), ["runs.cmer.options.focus_adapter", "true or false"]),
        (changed(*CMER, to={"focus_adapter": 1}), ["runs.cmer.options.focus_adapter", "true or false"]),
        (changed(*CMER, to={"hidden": 10**6, "heads": 1}), ["runs.cmer.options.hidden", "8192"]),
        (changed(*CMER, to={"focus_dropout": 1.0}), ["runs.cmer.options.focus_dropout", "less than 1"]),
        (changed(*CMER, to={"focus_field": 1000}), ["runs.cmer.options.focus_field", "32"]),
        (changed(*CMER, to={"projection": {"hidden": 10**9}}), ["runs.cmer.options.projection.hidden", "8192"]),
        (changed("runs", "cmer", "datasets", to=["demo", "demo"]), ["runs.cmer.datasets", "demo appears more than"]),
        (changed("runs", "cmer", "backbones", to=["tiny", "tiny"]), ["runs.cmer.backbones", "tiny appears more"]),
        (changed("runs", "cmer", "backbones", to=[]), ["runs.cmer.backbones", "at least one value"]),
        (changed("runs", "cmer", "sweep", to={"training.lr": [1, 1.0]}), ["runs.cmer.sweep.training.lr", "twice"]),
        (
            changed("runs", "cmer", "sweep", to={f"training.{key}": list(range(1, 12)) for key in "abc"}),
            ["runs.cmer.sweep", "1,000 combinations"],
        ),
        (changed("tables", "table1", "runs", to=["tiny.*", "tiny.*"]), ["tables.table1.runs", "tiny.* appears more"]),
        (changed("tables", "table1", "protocols", to=[]), ["tables.table1.protocols", "at least one value"]),
        (changed("tables", "table1", "protocols", to=["none", "none"]), ["tables.table1.protocols", "none appears"]),
        (changed("profile", to={"batches": []}), ["profile.batches.0", "required"]),
        (changed("profile", to={"settings": []}), ["profile.settings", "at least one value"]),
        (changed("datasets", "demo", "exclude", to=["twins", "twins"]), ["datasets.demo.exclude", "twins appears"]),
        (changed("datasets", "demo", "size", to=10**6), ["datasets.demo.size", "2048"]),
        (changed("datasets", "demo", "images_per_class", to=10**9), ["datasets.demo.images_per_class", "10000"]),
        (changed("datasets", "demo", "title", to="x" * 20_000), ["datasets.demo.title", "20,000 characters"]),
        (changed("datasets", "demo", "title", to="a\nb"), ["datasets.demo.title", "control character"]),
        (changed("datasets", False, to={"source": "demo"}), ["datasets", "the key False is not text", "in quotes"]),
        (changed("datasets", "No Name", to={"source": "demo"}), ["datasets.No Name", "a name consists of a-z, 0-9"]),
        (changed("backbones", "x" * 300, to={"kind": "tiny"}), ["backbones", "200 characters"]),
        (changed("seeds", to=10**5000), ["seeds", "bits is too large"]),
        (changed("training", to={"train_images": 10**8}), ["training.train_images", "10000000"]),
        (changed("datasets", "demo", to=DRAWN | {"size": 2048}), ["datasets.demo", "per class", "draw fewer"]),
        (changed("datasets", "demo", "title", to=" "), ["datasets.demo.title", "should not be blank"]),
        (changed("datasets", "x", to=OWN | {"root": ""}), ["datasets.x.root", "should not be blank"]),
        (changed("datasets", "x", to={"source": "rsicd", "title": ""}), ["datasets.x.title", "not be blank"]),
        (changed("datasets", "x", to=source(kind="local", path=" ")), ["sources.0", "path", "should not be blank"]),
        (changed("datasets", "x", to=source(**HUB | {"files": [""]})), ["sources.0", "files.0", "not be blank"]),
        (changed("datasets", "x", to=source(**HUB | {"repo": ""})), ["sources.0", "repo", "should not be blank"]),
        (changed("backbones", "x", to=CLIP | {"model": ""}), ["backbones.x.model", "should not be blank"]),
        (changed("backbones", "x", to=CLIP | {"weights": ""}), ["backbones.x.weights", "should not be blank"]),
        (changed("backbones", "x", to=CLIP | {"printed": ""}), ["backbones.x.printed", "should not be blank"]),
        (changed("backbones", "tiny", "features", to={"blocks": [1001]}), ["blocks.0", "1000"]),
        (changed("backbones", "tiny", "features", to={"text_blocks": [-1]}), ["text_blocks.0", "equal to 0"]),
        (changed("datasets", to={f"d{i}": {"source": "demo"} for i in range(1001)}), ["datasets", "at most 1000"]),
        (changed("tables", to={f"t{i}": {"runs": ["*"]} for i in range(1001)}), ["tables", "at most 1000"]),
        (changed("datasets", "x", to=OWN | {"merge": {"forest": "_"}}), ["datasets.x.merge", "names no class"]),
        (changed("datasets", "x", to=OWN | {"merge": {"forest": ""}}), ["datasets.x.merge", "names no class"]),
        (changed("datasets", "x", to=OWN | {"merge": {" - ": "b"}}), ["datasets.x.merge", "names no class"]),
        (
            changed("datasets", "x", to=OWN | {"labels": {"rule": "id", "classes": ["", "b"]}}),
            ["classes.0", "no class"],
        ),
        (changed("datasets", "x", to=stretched("range", 0, 1e13)), ["stretch", "high", "1000000000000"]),
        (
            changed("datasets", "x", to=stretched("range", 1e9, 1e9 + 0.5)),
            ["stretch", "must be below high", "at least 1"],
        ),
        (changed("datasets", "x", to=stretched("range", 0, 1e-310)), ["stretch", "must be below high"]),
        (changed("datasets", "x", to=stretched("percentile", 50, 50.05)), ["stretch", "below high", "at least 0.1"]),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(data: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(data)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_step_against_a_long_queue_has_bounded_scores() -> None:
    data = changed(*CMER, to={"queue_batches": 1024}) | {"training": {"batch_size": 1024}}
    assert parse(data).run("tiny.cmer").training.batch_size == 1024
    with pytest.raises(ConfigError, match=r"runs\.cmer: batch_size: 4,096 pairs against 4,198,400 .* shorter queue"):
        parse(data | {"training": {"batch_size": 4096}})


def test_runs_are_bounded_in_number_and_in_depth() -> None:
    many = {f"r{number}": {"method": "cmer"} for number in range(1001)}
    with pytest.raises(ConfigError, match=r"runs\.r1000: the config has more than 1,000 runs"):
        parse(MINIMAL | {"runs": many, "tables": {}})
    chain = {"r0": {"method": "cmer"}} | {f"r{number}": {"based_on": f"r{number - 1}"} for number in range(1, 30)}
    with pytest.raises(ConfigError, match="r29 is based on more than 20 runs"):
        parse(MINIMAL | {"runs": chain, "tables": {}})


def test_values_are_neither_nested_too_deeply_nor_too_many() -> None:
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(ConfigError, match="nested more than 20 deep"):
        parse(MINIMAL | {"seeds": deep})
    wide: list[Any] = [1] * 10
    for _ in range(8):
        wide = [wide] * 10
    with pytest.raises(ConfigError, match="more than 100,000 values"):
        parse(MINIMAL | {"seeds": wide})


@pytest.mark.parametrize("value", [True, 4.0, "4", 2])
def test_views_are_one_of_three_integers(value: object) -> None:
    with pytest.raises(ValueError, match=r"integer|1, 4 or 8"):
        FeatureOptions.model_validate({"views": value})


def test_an_integer_is_a_number_and_one_band_can_be_all_colours() -> None:
    assert parse(changed("training", to={"lr": 1})).training.lr == 1.0
    assert Raster.model_validate({"bands": [1, 1, 1]}).bands == (1, 1, 1)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("range", -1e12, 1e12), ("range", 0, 1e-4), ("percentile", 98, 98.1)]
)
def test_limits_that_rasters_can_have_are_accepted(kind: str, low: float, high: float) -> None:
    assert parse(changed("datasets", "x", to=stretched(kind, low, high))).datasets["x"].title == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"seed": 1, "seed": 2}', "'seed' appears twice"),
        ('{"seed": NaN}', "NaN is not a finite number"),
        ('{"seed": 1e999}', "1e999 is not a finite number"),
        ("[" * 100_000, "not valid JSON"),
        ("[" * 50 + "]" * 50, "nested more than 20 deep"),
        ('{"run": "%s"}' % ("x" * 20_000), "run: text of 20,000 characters"),
        ("9" * 5000, "not valid JSON"),
        ('{"run": "a\\u0000"}', "run: text with a control character"),
    ],
)
def test_options_in_json_repeat_no_key_and_are_of_moderate_size(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        validate_json(RunSpec, text, "--spec")
    assert str(error.value).startswith("--spec") and len(str(error.value)) < 1000


# --- YAML -------------------------------------------------------------------------------------------------------------


def test_yaml_has_none_of_the_surprises_of_its_first_version() -> None:
    text = "{no: on, y: off, time: 1:30, small: 1e-3, hex: 0x10, oct: 0o10, zero: 0, part: 0.5, none: null, yes: true}"
    assert parse_yaml(text, "x") == {
        "no": "on", "y": "off", "time": "1:30", "small": 0.001, "hex": 16, "oct": 8, "zero": 0, "part": 0.5,
        "none": None, "yes": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3", 3, 'duplicate key "a"'),
        ("a: {b: 1,\n  b: 2}", 2, 'duplicate key "b"'),
        ("a: 1\nb: 010", 2, "010 has a leading zero; write it without, or in quotes if it is text"),
        ("a: 1\nb: [1, 2\nc: 3", 3, "expected ',' or ']'"),
        ("a: 1\n\tb: 2", 2, "cannot start any token"),
        ("a: *b", 1, "undefined alias 'b'"),
        ("a: 1\nb: !!int x", 2, "'x' cannot be read as int"),
        ("a: 1\nb: !!int", 2, "'' cannot be read as int"),
        ("a: !!bool x", 1, "'x' cannot be read as bool"),
        ("a: !!int {b: 1}", 1, "expected a scalar node"),
        ("b: !!python/object:os.system x", 1, "could not determine a constructor"),
        ("a: 1\n---\nb: 2", 2, "another document"),
        ("a: " + "9" * 5000, 1, "cannot be read as int"),
        *(
            (f"a: 1\nb: {number}", 2, f"{number} is a number with `_`")
            for number in ("1_", "1__0", "-_", "0x_1", "1_0.5")
        ),
        ('a: 1\nb: "\\UFFFFFFFF"', 2, "cannot be read: Python int too large"),
        ('a: "\\U00110000"', 1, "cannot be read: chr() arg"),
        ("%YAML 1.1\n---\na: no", 1, "directives, such as %YAML, are not supported"),
        ("\ufeff\ufeff# x\n%TAG ! x\n---\na: 1", 2, "directives"),
        ("a: &a {b: 1}\nc:\n  <<: *a", 3, "merge keys (<<) are not supported; let the run be `based_on` another"),
        ("a: [{<<: {b: 1}}]", 1, "merge keys"),
        ("!!merge x: {b: 1}", 1, "merge keys"),
    ],
)
def test_an_error_in_yaml_names_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_settings([file])
    assert str(error.value).startswith(f"{file}, line {line}: ") and message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no settings, such as `seeds: [2022]`, but None"),
        ("- 1", "has no settings"),
        ("[" * 5000, "is nested too deeply"),
        ("a: 2020-01-01", "a: datetime.date(2020, 1, 1) is a date; write it in quotes to make it text"),
        ("1: 2", "the key 1 is not text; write it in quotes"),
        ("a: \0", "is not YAML: unacceptable character #x0000"),
        ("!!seq [[1]]: 1", "is not YAML: unhashable type"),
        ("__use_yte__: true\n?1 + 1: 2", "is a template (__use_yte__)"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_settings([tmp_path / "mine.yaml"])
    assert str(tmp_path / "mine.yaml") in str(error.value) and message in str(error.value)


def test_the_value_of_an_entry_is_named_within_it() -> None:
    with pytest.raises(ConfigError, match=r"--config seeds is not valid:\n  - 0: an integer of 67 bits is too large"):
        read_settings([], ["seeds=[99999999999999999999]"])


def test_aliases_that_multiply_are_refused_at_once() -> None:
    lines = ["a: &a [" + "x," * 9 + "]"] + [f"{b}: &{b} [" + f"*{a}," * 9 + "]" for a, b in pairwise("abcdefghi")]
    with pytest.raises(ConfigError, match="more than 100,000 values"):
        parse_yaml("\n".join(lines), "x")
    merged = ["a: &a {x: 1}"] + [f"{b}: &{b} {{<<: [" + f"*{a}," * 9 + "]}" for a, b in pairwise("abcdefghi")]
    with pytest.raises(ConfigError, match=r"x, line 2: merge keys"):
        parse_yaml("\n".join(merged), "x")


def test_a_large_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("[" * (2**18 + 1))
    with pytest.raises(ConfigError, match=r"x\.yaml has 262,145 bytes; a config has at most 262,144"):
        read_settings([tmp_path / "x.yaml"])


def test_later_files_and_entries_override_earlier_ones_key_by_key(tmp_path: Path) -> None:
    for name, text in {"a": "x: {y: 1, z: [1]}\nu: 1", "b": '{"x": {"z": []}}'}.items():
        (tmp_path / name).write_text(text)
    found = read_settings([tmp_path / "a", tmp_path / "b"], ["x={y: 1e-2}", "v=no", "w=a=b", "t="])
    assert found == {"x": {"y": 0.01, "z": []}, "u": 1, "v": "no", "w": "a=b", "t": None}
    with pytest.raises(ConfigError, match=r"--config x, line 1: .*duplicate key"):
        read_settings([tmp_path / "a"], ["x={y: 1, y: 2}"])


def test_a_dataset_can_be_called_no(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "datasets: {no: {source: demo}}\nbackbones: {'on': {kind: tiny}}\n"
        "runs: {off: {method: cmer, datasets: [no], backbones: [on]}}\n"
    )
    assert [(run.name, run.datasets) for run in read([file]).expanded] == [("on.off", ["no"])]
    file.write_text("datasets: {no: {source: demo}}\nruns: {off: {method: cmerr, datasets: [no]}}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml is not valid:\n  - runs\.off\.method: unknown method 'cmerr'"):
        read([file])


def test_the_command_lists_the_runs_of_a_config_or_says_what_is_wrong(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["config", "config/ci.yaml"]).output
    assert "tiny.clip_lora: clip_lora on demo\n" in shown
    (tmp_path / "x.yaml").write_text("a: [")
    result = CliRunner().invoke(app, ["config", str(tmp_path / "x.yaml")])
    assert isinstance(result.exception, ConfigError) and "x.yaml, line 1" in str(result.exception)
