import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import update_config

from cmer.config import ONLINE
from cmer.config.base import ConfigError, validate
from cmer.config.experiment import Config, parse
from cmer.config.runs import RunSpec
from cmer.methods.cmer.options import CmerOptions
from cmer.registry import METHODS

ROOT = Path(__file__).parents[1]
OVERLAYS = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "datasets": {"demo": {"source": "demo", "title": "demo"}},
    "backbones": {"tiny": {"kind": "tiny", "printed": "tiny"}},
    "runs": [{"name": "tiny.cmer", "datasets": ["demo"], "backbone": "tiny", "method": "cmer"}],
    "tables": [{"number": 1, "datasets": ["demo"], "runs": ["tiny.cmer"]}],
}


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    data = copy.deepcopy(MINIMAL)
    inner: Any = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return data


def overlaid(overlay: str | None) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    if overlay:
        update_config(config, yaml.safe_load((ROOT / "config" / overlay).read_text()))
    return config


def test_defaults_of_a_minimal_config() -> None:
    config = parse(MINIMAL)
    assert (config.results, config.seeds, config.training.epochs) == ("results", [2022], 20)
    assert config.run("tiny.cmer").options == CmerOptions()


def test_table_3_brings_its_figure_where_it_names_a_dataset() -> None:
    assert parse(MINIMAL).figures == []
    assert parse(changed("tables", to=[{"number": 3, "runs": ["tiny.cmer"]}])).figures == []
    table = {"number": 3, "runs": ["tiny.cmer"], "datasets": ["demo"]}
    assert parse(changed("tables", to=[table])).figures == ["accuracy_cost"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed("datasetz", to={}), ["datasetz", "known are", "datasets"]),
        (changed("training", to={"epoch": 3}), ["training", "'epoch'", "epochs"]),
        (changed("training", to={"epochs": "many"}), ["training.epochs", "integer", "'many'"]),
        (changed("training", to={"epochs": 0}), ["training.epochs", "greater than or equal to 1", "0"]),
        (changed("runs", 0, "backbone", to="tini"), ["runs[tiny.cmer].backbone", "tini", "known are tiny"]),
        (changed("runs", 0, "datasets", to=["rsitm"]), ["runs[tiny.cmer].datasets", "rsitm", "known are demo"]),
        (changed("runs", 0, "method", to="cmerr"), ["runs[tiny.cmer]", "unknown method 'cmerr'", "linear_probe"]),
        (changed("runs", 0, "options", to={"hidde": 3}), ["runs[tiny.cmer].options", "'hidde'", "hidden"]),
        (changed("runs", 0, "options", to={"heads": 5}), ["hidden (192) must be a multiple of heads (5)"]),
        (changed("runs", 0, "training", to={"lrr": 3}), ["runs[tiny.cmer].training", "'lrr'", "known are", "lr"]),
        (
            changed("runs", 0, "training", to={"augmentation": "crop_flip"}),
            ["runs[tiny.cmer].training", "crop_flip", "inputs: online"],
        ),
        (changed("runs", 0, "method", to="clip_lora"), ["runs[tiny.cmer]", "clip_lora", "training: {inputs: online}"]),
        (changed("backbones", "tiny", "kind", to="vit"), ["backbones.tiny", "'vit'", "'open_clip'", "'lite'"]),
        (
            changed("tables", 0, to={"number": 3, "datasets": ["demo", "rsicd"]}),
            ["tables.0", "table 3 takes one dataset at most"],
        ),
        (changed("seeds", to=[1, 1]), ["\n  - seeds: 1 appears more than once"]),
        (changed("seeds", to=[-1]), ["seeds.0", "greater than or equal to 0"]),
        (changed("backbones", "tiny", to={"printed": "x"}), ["backbones.tiny", "'kind' required"]),
        (changed("tables", 0, "runs", to=[]), ["tables[1]", "none of its runs is on demo"]),
        (changed("tables", 0, "number", to=7), ["tables.0.number", "1, 2, 3, 4, 5 or 6", "7"]),
        (changed("tables", 0, "runs", to=["x.y"]), ["tables[1].runs", "x.y", "known are tiny.cmer"]),
        (changed("runs", to=MINIMAL["runs"] * 2), ["runs", "tiny.cmer", "more than once"]),
        (changed("datasets", "demo", "template", to="{label}"), ["datasets.demo", "template", "{caption}"]),
    ],
)
def test_a_mistake_names_key_given_and_allowed(data: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(data)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_every_mistake_is_told_at_once() -> None:
    data = changed("training", to={"epochs": 0, "lr": -1})
    with pytest.raises(ConfigError, match=r"(?s)training\.epochs.*training\.lr"):
        parse(data)


def test_a_run_overrides_single_training_keys() -> None:
    data = changed("runs", 0, "training", to={"lr": 0.1}) | {"training": {"lr": 0.2, "epochs": 3}}
    config = parse(data)
    training = config.training_of(config.run("tiny.cmer"))
    assert (training.lr, training.epochs) == (0.1, 3)


def test_methods_that_read_pixels_are_known_without_importing_them() -> None:
    names = [path.stem for path in (ROOT / "cmer/methods").glob("[a-z]*.py") if path.stem != "base"]
    assert {name for name in names if METHODS.get(name).reads == "pixels"} == set(ONLINE)


def test_spec_survives_json() -> None:
    spec = parse(MINIMAL).spec("tiny.cmer", "demo", 2022)
    assert validate(RunSpec, spec.model_dump(mode="json"), "spec") == spec
    assert isinstance(spec.options, CmerOptions)


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_every_config_of_the_project_is_valid(overlay: str | None) -> None:
    config = parse(overlaid(overlay))
    assert config.results == ("results" if overlay is None else f"results/{Path(str(overlay)).stem}")


def test_default_ablation_is_the_papers() -> None:
    config = parse(overlaid(None))
    rows = [config.run(f"lite.cmer_{name}").options for name in ("v1", "v2", "d1", "d2")]
    parts = [(o.focus_adapter, o.queue_batches, o.scene_prompt) for o in rows if isinstance(o, CmerOptions)]
    assert parts == [(False, 0, False), (True, 0, False), (True, 4, False), (True, 4, True)]
    shared = {"focus_adapter", "queue_batches", "scene_prompt", "label_dropout"}
    assert len({row.model_dump_json(exclude=shared) for row in rows}) == 1


def test_schema_describes_every_key_of_the_default_config() -> None:
    properties = Config.model_json_schema()["properties"]
    assert set(overlaid(None)) <= set(properties)
