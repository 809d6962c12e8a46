import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from config_cases import MINIMAL, OTHERS, ROOT, changed, read

from cmer.config.base import ConfigError, validate
from cmer.config.experiment import Config, parse
from cmer.config.runs import RunSpec
from cmer.methods.cmer.options import CmerOptions
from cmer.registry import METHOD_OPTIONS, METHODS


def with_runs(**runs: dict[str, Any]) -> Config:
    return parse(MINIMAL | {"runs": runs, "tables": {}})


def test_defaults_of_a_minimal_config() -> None:
    config = parse(MINIMAL)
    assert (config.results, config.seeds, config.training.epochs) == ("results", [2022], 20)
    assert config.run("tiny.cmer").options == CmerOptions()
    assert (config.tables["table1"].kind, config.datasets["demo"].title) == ("table1", "demo")


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_is_based_on_another_and_on_the_defaults() -> None:
    config = with_runs(
        first={"method": "cmer", "options": {"margin": 0.3, "projection": {"dim": 64}}, "training": {"lr": 0.1}},
        second={"based_on": "first", "options": {"projection": {"dropout": 0.5}}, "training": {"epochs": 3}},
        third={"based_on": "second", "options": {"margin": 0.4}},
    )
    third = config.run("tiny.third")
    assert isinstance(third.options, CmerOptions)
    assert (third.options.margin, third.options.projection.dim, third.options.projection.dropout) == (0.4, 64, 0.5)
    assert (third.training.lr, third.training.epochs, third.datasets) == (0.1, 3, ["demo"])
    assert config.run("tiny.first").training.epochs == 20


def test_backbones_and_sweeps_expand_into_runs_with_readable_names() -> None:
    data = changed("backbones", "lite", to={"kind": "lite"}) | {"tables": {}}
    sweep = {"training.lr": [0.1, 0.002], "options.queue_batches": [0, 2]}
    data["runs"] = {"cmer": {"method": "cmer", "backbones": ["tiny", "lite"], "sweep": sweep}}
    config = parse(data)
    names = [f"{t}.cmer.lr_{lr}.queue_batches_{q}" for lr in (0.1, 0.002) for q in (0, 2) for t in ("tiny", "lite")]
    assert [run.name for run in config.expanded] == names
    run = config.run("lite.cmer.lr_0.002.queue_batches_2")
    assert isinstance(run.options, CmerOptions)
    assert (run.training.lr, run.options.queue_batches, run.backbone) == (0.002, 2, "lite")


def test_a_sweep_is_not_inherited() -> None:
    config = with_runs(
        one={"method": "cmer", "sweep": {"training.lr": [0.1]}}, two={"based_on": "one", "training": {"epochs": 2}}
    )
    assert [run.name for run in config.expanded] == ["tiny.one.lr_0.1", "tiny.two"]


def test_a_run_overrides_single_training_keys() -> None:
    data = changed("runs", "cmer", "training", to={"lr": 0.1}) | {"training": {"lr": 0.2, "epochs": 3}}
    training = parse(data).run("tiny.cmer").training
    assert (training.lr, training.epochs) == (0.1, 3)


def test_inputs_are_the_methods_usual_ones_unless_the_config_says_otherwise() -> None:
    config = with_runs(
        probe={"method": "linear_probe"},
        lora={"method": "clip_lora"},
        online={"method": "linear_probe", "training": {"inputs": "online"}},
    )
    assert [run.training.inputs for run in config.expanded] == ["stored", "online", "online"]


def test_rows_of_a_table_come_in_the_order_of_its_patterns() -> None:
    config = with_runs(a={"method": "cmer"}, b1={"method": "cmer"}, b2={"method": "cmer"})
    assert [run.name for run in config.matching(["tiny.b*", "tiny.*"])] == ["tiny.b1", "tiny.b2", "tiny.a"]


def test_a_figure_is_of_the_only_dataset_of_its_runs() -> None:
    figure = {"accuracy_cost": {"runs": ["tiny.cmer"]}}
    assert parse(MINIMAL | {"figures": figure}).dataset_of("accuracy_cost") == "demo"
    data = changed("datasets", "more", to={"source": "demo"}) | {"figures": figure}
    data["run_defaults"]["datasets"].append("more")
    with pytest.raises(ConfigError, match=r"figures\.accuracy_cost\.dataset: its runs use demo, more; name one"):
        parse(data)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed("datasetz", to={}), ["datasetz", "known are", "datasets"]),
        (changed("training", to={"epoch": 3}), ["training", "'epoch'", "epochs"]),
        (changed("training", to={"epochs": "many"}), ["training.epochs", "integer", "'many'"]),
        (changed("training", to={"epochs": 0}), ["training.epochs", "greater than or equal to 1", "0"]),
        (changed("runs", "cmer", "backbones", to=["tini"]), ["runs.cmer.backbones", "tini", "known are tiny"]),
        (changed("runs", "cmer", "datasets", to=["rsitm"]), ["runs.cmer.datasets", "rsitm", "known are demo"]),
        (changed("runs", "cmer", "method", to="cmerr"), ["runs.cmer", "unknown method 'cmerr'", "linear_probe"]),
        (changed("runs", "cmer", "options", to={"hidde": 3}), ["runs.cmer.options", "'hidde'", "hidden"]),
        (changed("runs", "cmer", "options", to={"heads": 5}), ["hidden (192) must be a multiple of heads (5)"]),
        (changed("runs", "cmer", "options", to={"margin": -1}), ["runs.cmer.options.margin", "greater than", "-1"]),
        (changed("runs", "cmer", "options", to={"loss": "tripplet"}), ["runs.cmer.options.loss", "contrastive"]),
        (changed("runs", "cmer", "training", to={"lrr": 3}), ["runs.cmer.training", "'lrr'", "known are", "lr"]),
        (
            changed("runs", "cmer", "training", to={"augmentation": "crop_flip"}),
            ["runs.cmer.training", "crop_flip", "inputs: online"],
        ),
        (
            changed("runs", "cmer", to={"method": "clip_lora", "training": {"inputs": "stored"}}),
            ["runs.cmer", "clip_lora", "inputs: stored"],
        ),
        (changed("runs", "cmer", "based_on", to="cmr"), ["runs.cmer.based_on", "unknown run 'cmr'", "known are cmer"]),
        (changed("runs", "cmer", "based_on", to="cmer"), ["runs.cmer.based_on", "circle"]),
        (changed("runs", "cmer", "sweep", to={"lr": [1]}), ["runs.cmer.sweep", "'lr'", "training.lr"]),
        (
            changed("runs", "cmer", "sweep", to={"training.lr": []}),
            ["runs.cmer.sweep.training.lr", "one value"],
        ),
        (changed("runs", "cmer", to={}), ["runs.cmer.method", "required"]),
        (changed("run_defaults", to={"datasets": ["demo"]}), ["runs.cmer.backbones", "required", "known are tiny"]),
        (changed("backbones", "tiny", "kind", to="vit"), ["backbones.tiny", "'vit'", "open_clip", "lite"]),
        (changed("backbones", "tiny", "threads", to=0), ["backbones.tiny.threads", "greater than or equal to 1"]),
        (changed("backbones", "tiny", to={"printed": "x"}), ["backbones.tiny", "'kind' is required"]),
        (changed("datasets", "demo", "source", to="rsitm"), ["datasets.demo", "rsitm", "demo, folder, rsicd, rsitmd"]),
        (changed("datasets", "demo", to={}), ["datasets.demo", "source"]),
        (changed("datasets", "demo", "labels", to={"rule": "lists"}), ["datasets.demo.labels.folder", "required"]),
        (changed("datasets", "demo", "template", to="{label}"), ["datasets.demo", "template", "{caption}"]),
        (changed("seeds", to=[1, 1]), ["\n  - seeds: 1 appears more than once"]),
        (changed("seeds", to=[-1]), ["seeds.0", "greater than or equal to 0"]),
        (changed("tables", "table1", "runs", to=[]), ["tables.table1.runs", "at least one value"]),
        (
            changed("datasets", "more", to={"source": "demo"})
            | {"tables": {"table1": {"runs": ["*"], "datasets": ["more"]}}},
            ["tables.table1", "none of its runs uses more"],
        ),
        (changed("tables", "table7", to={"runs": ["*"]}), ["tables.table7.kind", "unknown table 'table7'", "table6"]),
        (changed("tables", "table1", "runs", to=["x.*"]), ["tables.table1.runs", "'x.*'", "known are tiny.cmer"]),
        (changed("figures", "photo", to={"runs": ["*"]}), ["figures.photo.kind", "'photo'", "accuracy_cost"]),
    ],
)
def test_a_mistake_names_key_given_and_allowed(data: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(data)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "function-" not in str(error.value) and "tagged" not in str(error.value)


def test_every_mistake_is_told_at_once() -> None:
    data = changed("training", to={"epochs": 0, "lr": -1})
    with pytest.raises(ConfigError, match=r"(?s)training\.epochs.*training\.lr"):
        parse(data)
    two = {"one": {"method": "cmer", "options": {"heads": 5}}, "two": {"method": "cmerr"}}
    with pytest.raises(ConfigError, match=r"(?s)runs\.one\.options.*runs\.two\.method"):
        parse(MINIMAL | {"runs": two})


def test_a_table_of_recalls_needs_a_dataset_and_one_of_costs_does_not() -> None:
    bare = changed("run_defaults", to={"backbones": ["tiny"]}) | {"datasets": {}}
    with pytest.raises(ConfigError, match=r"tables\.t: none of its runs uses a dataset; add it to their `datasets`"):
        parse(bare | {"tables": {"t": {"kind": "table1", "runs": ["*"]}}})
    assert parse(bare | {"tables": {"table3": {"runs": ["*"]}}}).tables
    with pytest.raises(ConfigError, match=r"runs\.cmer\.datasets: unknown demo; known are none$"):
        parse(MINIMAL | {"datasets": {}, "tables": {}})


def test_the_dataset_of_a_figure_is_named_by_its_key() -> None:
    figure = {"accuracy_cost": {"runs": ["*"], "dataset": "nope"}}
    with pytest.raises(ConfigError, match=r"figures\.accuracy_cost\.dataset: unknown nope; known are demo"):
        parse(MINIMAL | {"figures": figure})
    data = changed("datasets", "more", to={"source": "demo"})
    with pytest.raises(ConfigError, match=r"figures\.accuracy_cost: none of its runs uses more"):
        parse(data | {"figures": {"accuracy_cost": {"runs": ["*"], "dataset": "more"}}})


# --- methods, and what planning knows of them -------------------------------------------------------------------------


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys, yaml; from cmer.config.experiment import parse; from cmer.plan import Plan\n"
        "plan = Plan(parse(yaml.safe_load(open('config/paper.yaml'))))\n"
        "plan.training_code('vit_b_16.cmer'), plan.table_spec('table3'), plan.profile_code('vit_b_16')\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in (ROOT / "cmer/methods").glob("*/options.py")))
def test_a_method_registers_itself_and_its_options_under_the_name_of_its_folder(name: str) -> None:
    options, method = METHOD_OPTIONS.get(name), METHODS.get(name)
    assert options.__module__ == f"cmer.methods.{name}.options"
    assert method.__module__ == f"cmer.methods.{name}.model"


def test_methods_within_the_towers_read_pixels() -> None:
    online = {"clip_adapter", "clip_bitfit", "clip_lora", "cross_modal_adapter", "pe_rsitr", "single_language"}
    online |= {"amfmn", "cmpagl", "hvsa", "ieft", "mcrn", "pir", "swan"}
    builtin = [name for name in METHOD_OPTIONS.names() if not name.startswith("toy")]
    assert {name for name in builtin if METHOD_OPTIONS.get(name).image_input == "pixels"} == online


# --- specs and the project's own configs ------------------------------------------------------------------------------


def test_spec_survives_json() -> None:
    spec = parse(MINIMAL).spec("tiny.cmer", "demo", 2022)
    assert validate(RunSpec, spec.model_dump(mode="json"), "spec") == spec
    assert isinstance(spec.options, CmerOptions)


@pytest.mark.parametrize("name", [None, *OTHERS])
def test_every_config_of_the_project_is_valid_and_complete(name: str | None) -> None:
    config = parse(read(name))
    assert config.results == ("results" if name is None else f"results/{Path(str(name)).stem}")


@pytest.mark.parametrize(("name", "most"), [(None, 120), ("paper.yaml", 100)])
def test_configs_are_short(name: str | None, most: int) -> None:
    file = ROOT / "config" / name if name else ROOT / "config.yaml"
    assert len(file.read_text().splitlines()) <= most


ON_RSICD = {"accuracy_cost", "recall_curves", "grad_cam", "text_map"}
PAPERS = ON_RSICD | {"ablation", "focus_field", "queue_length", "printed"}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("paper.yaml", PAPERS | {"gallery"}),
        ("rsicd_lite.yaml", ON_RSICD | {"ablation"}),
        ("rsicd_recipe.yaml", ON_RSICD | {"gallery"}),
    ],
)
def test_an_experiment_has_the_figures_of_its_results(name: str, kinds: set[str]) -> None:
    config = parse(read(name))
    assert {figure.kind for figure in config.figures.values()} == kinds
    for figure, entry in config.figures.items():
        datasets = {dataset for _, dataset in config.rows(entry.runs, [config.dataset_of(figure)])}
        assert len(datasets) == 1
        if entry.kind == "ablation":
            steps = [run.options for run in config.matching(entry.runs)]
            assert [step.variant for step in steps if isinstance(step, CmerOptions)] == ["v1", "v2", "d1", "d2"]


def test_the_papers_curves_have_a_point_per_row_of_their_tables() -> None:
    config = parse(read("paper.yaml"))
    for figure, table in (("focus_field", "table5"), ("queue_length", "table6"), ("accuracy_cost", "table3")):
        assert config.figures[figure].runs == config.tables[table].runs
    for kind in ("ablation", "printed"):
        shown = [name for name, entry in config.figures.items() if entry.kind == kind]
        assert [config.dataset_of(name) for name in shown] == ["rsitmd", "rsicd"]


@pytest.mark.parametrize("name", ["rsicd_lite.yaml", "rsicd_recipe.yaml"])
def test_costs_of_runs_on_stored_features_are_those_of_reading_them(name: str) -> None:
    config = parse(read(name))
    assert config.profile.timed_batches == {config.training.batch_size}
    assert all(config.profiled_from_store(run) for run in config.expanded)


@pytest.mark.parametrize("name", [None, *OTHERS])
def test_speed_is_the_median_of_enough_steps(name: str | None) -> None:
    profile = parse(read(name)).profile
    warmup, steps = profile.warmup * profile.rounds, profile.steps * profile.rounds
    if name == "paper.yaml":  # on a GPU
        assert (warmup, steps) == (10, 50)
    elif name != "ci.yaml":  # whose numbers mean nothing
        assert steps >= 10 and profile.rounds >= 3


@pytest.mark.parametrize("name", ["efficiency_cpu.yaml", "paper.yaml"])
def test_both_presets_of_clip_lora_are_rows(name: str) -> None:
    runs = [run for run in parse(read(name)).expanded if run.method == "clip_lora"]
    presets = {run.backbone: {other.options.preset for other in runs if other.backbone == run.backbone} for run in runs}
    assert len(presets) >= 3
    assert all(found == {"all_maps", "in_projections"} for found in presets.values())


def test_default_ablation_is_the_papers() -> None:
    config = parse(read(None))
    rows = [config.run(f"lite.cmer_{name}").options for name in ("v1", "v2", "d1", "d2")]
    parts = [(o.focus_adapter, o.queue_batches, o.scene_prompt) for o in rows if isinstance(o, CmerOptions)]
    assert parts == [(False, 0, False), (True, 0, False), (True, 4, False), (True, 4, True)]
    shared = {"focus_adapter", "queue_batches", "scene_prompt", "label_dropout"}
    assert len({row.model_dump_json(exclude=shared) for row in rows}) == 1
