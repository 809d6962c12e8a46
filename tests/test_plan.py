"""What the workflow plans, as functions of a config: specs, code digests, needs, resources. No Snakemake runs here."""

import copy
import json
from pathlib import Path
from typing import Any

import planned_steps
import pytest
import yaml
from planned_steps import TABLE_1, Step, changed, config, plan, planned, resources, rules_of

from cmer.config import experiment
from cmer.plan import OWN_TOWERS
from cmer.registry import METHOD_OPTIONS
from cmer.resources import StepResources

ALL_TABLES = {("table", f"table{number}") for number in range(1, 7)}
FIGURES = {("figure", name) for name in config()["figures"]}
RUNS = {run.name for run in plan(config()).config.expanded}


def edited(**sections: Any) -> dict[str, Any]:
    """The default config with keys of its sections replaced."""
    data = config()
    for section, keys in sections.items():
        data[section] = {**data[section], **keys} if isinstance(keys, dict) else keys
    return data


def replanned(data: dict[str, Any]) -> set[Step]:
    """Steps of a changed default config that are not those of the default config."""
    return changed(planned(plan(config())), planned(plan(data)))


# --- what there is ----------------------------------------------------------------------------------------------------


def test_every_rule_with_parameters_is_read_from_its_source() -> None:
    found = {rule.name: rule for rule in planned_steps.rules()}
    assert {"draw_demo", "fetch_data", "train", "embed", "evaluate", "profile", "table", "figure"} <= set(found)
    assert found["train"].wildcards == ["dataset", "run", "seed"]
    assert set(found["train"].params) == {"spec", "code"}
    assert found["train"].inputs == ["excluded_of_run", "features_of_run", "rich_of_run", "weights_of_run"]
    assert all("code" in rule.params for rule in found.values())


def test_the_report_reads_what_it_shows() -> None:
    rules = {rule.name: rule for rule in planned_steps.rules()}
    assert rules["report"].inputs == ["report_files", "report_datasets"]
    data = config("config/ci.yaml")
    data["rerankers"] = {"smr": {"kind": "smr", "runs": ["tiny.cmer"]}}
    data["tables"] = {"table1": {"runs": ["tiny.cmer", "tiny.cmer.smr"]}, "table3": {"runs": ["tiny.clip_lora"]}}
    whole = plan(data)
    run, reranked = "demo/tiny.cmer/seed2022", "demo/tiny.cmer.smr/seed2022"
    drawn = [f"figures/{name}.{suffix}" for name in ("accuracy_cost", "grad_cam") for suffix in ("svg", "csv")]
    shown = ["table1.csv", "table3.csv", *drawn]
    measured = [
        f"metrics/{place}{end}" for place in (run, reranked) for end in (".json", ".ranks.csv", ".queries.json")
    ]
    own = [f"curves/{run}.jsonl"]
    found = {file for file in whole.report_files() if "clip_lora" not in file and "cmer_text_side" not in file}
    assert found == {f"results/ci/{name}" for name in (*shown, *measured, *own)}
    described = ["data/demo/images.csv", "data/demo/images.tar", "data/demo/dataset.json"]
    assert whole.report_datasets() == [f"results/ci/{name}" for name in described]


def test_main_table_is_made_of_its_runs() -> None:
    whole = plan(config())
    assert {run.name for run in whole.config.matching(whole.config.tables["table1"].runs)} == TABLE_1
    metrics = [f"results/metrics/demo/{name}/seed2022.json" for name in TABLE_1]
    assert sorted(whole.table_metrics("table1")) == sorted(metrics)
    assert whole.table_profiles("table1") == []
    assert {file for name in TABLE_1 for file in whole.features_of_run(name, "demo")} == {
        "results/features/demo/lite.json"
    }


def test_swept_runs_have_readable_names() -> None:
    assert {"lite.cmer_queue.queue_batches_2", "lite.cmer_queue.queue_batches_8", "lite.cmer_h192.focus_field_7"} < RUNS


def test_published_dataset_needs_no_file_of_this_machine() -> None:
    rsicd = plan(config("config/rsicd_lite.yaml"))
    assert (rsicd.drawn, rsicd.fetched) == ([], ["rsicd"])
    trainings = [step for step in planned(rsicd) if step[0] == "train"]
    assert len(trainings) == 3 * len(config("config/rsicd_lite.yaml")["runs"])


def test_published_dataset_is_fetched_unless_the_user_has_it() -> None:
    known = {"rsicd": {"source": "rsicd"}, "ucm": {"source": "ucm", "root": "${CMER_DATA_ROOT}/ucm"}}
    changes = {"results": "results/known", "datasets": known, "figures": {}}
    mine = plan(edited(run_defaults={"datasets": ["rsicd", "ucm"]}) | changes)
    assert (mine.drawn, mine.fetched, mine.used) == ([], ["rsicd"], ["rsicd", "ucm"])
    assert mine.dataset_files("rsicd") == [
        f"results/known/data/rsicd/{name}" for name in ("images.tar", "dataset.json")
    ]
    assert mine.dataset_files("ucm") == []


def test_table_3_profiles_each_backbone_and_trains_for_its_figure_only() -> None:
    rows = {"runs": ["lite.linear_probe", "lite.cmer"]}
    alone = plan(config() | {"tables": {"table3": rows}, "figures": {}})
    assert alone.table_metrics("table3") == []
    assert alone.table_profiles("table3") == ["results/efficiency/lite.json"]
    assert alone.profiled == ["lite"]
    both = plan(config() | {"tables": {"table3": rows}, "figures": {"accuracy_cost": rows}})
    assert both.table_metrics("table3") == []
    assert both.figure_profiles("accuracy_cost") == both.table_profiles("table3") == ["results/efficiency/lite.json"]
    metrics = [f"results/metrics/demo/{name}/seed2022.json" for name in rows["runs"]]
    assert both.figure_metrics("accuracy_cost") == metrics
    assert plan(config() | {"tables": {"table1": rows}, "figures": {}}).profiled == []


def test_a_profile_encodes_in_parts_as_the_run_does() -> None:
    bench = plan(config("config/bench.yaml"))
    assert bench.profiled == ["lite", "vit_b_32", "vit_b_16", "vit_b_16_four_blocks", "vit_l_14"]
    rows = {row["run"]: row for row in json.loads(bench.profile_spec("vit_b_16"))["rows"]}
    sizes = {run: row["micro_batch"] for run, row in rows.items()}
    assert sizes["vit_b_16.cmer_d2_parts"] == 1 and sizes["vit_b_16.cmer_d2"] is None
    stored = [run for run, row in rows.items() if row["stored"]]
    names = ("cmer_d2_stored", "cmer_text_side_stored", "cmer_text_side_stored_parts")
    assert stored == [f"vit_b_16.{name}" for name in names], "the patterns of profile.stored"


def test_paper_extracts_features_once_for_a_backbone_and_a_dataset() -> None:
    paper = config("config/paper.yaml")
    assert "extract_features" not in rules_of(set(planned(plan(paper)))), "its runs open the images"
    stored = copy.deepcopy(paper)
    stored["training"]["inputs"] = "stored"
    for run in stored["runs"].values():
        if "method" in run and METHOD_OPTIONS.get(run["method"]).image_input == "pixels":
            run.setdefault("training", {})["inputs"] = "online"
    counts = [rule for rule, *_ in planned(plan(stored))]
    assert counts.count("extract_features") == len(paper["backbones"]) * len(paper["datasets"]) == 8
    assert counts.count("prepare_data") == counts.count("augment_captions") == 2
    per_dataset = sum(len(run.datasets) for run in plan(paper).config.expanded)
    assert counts.count("train") == counts.count("embed") == counts.count("evaluate") == 3 * per_dataset == 252


def test_heat_maps_are_of_the_queries_of_their_figures() -> None:
    data = config("config/ci.yaml")
    data["figures"]["again"] = {"kind": "grad_cam", "runs": ["tiny.*"], "queries": ["a pond", "two ponds"]}
    whole = plan(data)
    assert whole.figure_heat_maps("grad_cam") == ["results/ci/heat_maps/demo/tiny.cmer/seed2022.json"]
    assert whole.figure_heat_maps("accuracy_cost") == []
    for run in ("tiny.cmer", "tiny.clip_lora"):
        spec = json.loads(whole.heat_map_spec(run, "demo", "2022"))
        assert spec["queries"] == ["a pond", "two ponds"] and spec["run"]["run"] == run
        assert spec["dataset"] == json.loads(whole.data_spec("demo"))
    assert json.loads(plan(config("config/ci.yaml")).heat_map_spec("tiny.cmer", "demo", "2022"))["queries"] == []


def test_methods_without_a_backbone_are_profiled_by_themselves() -> None:
    assert OWN_TOWERS not in plan(config()).profiled
    taken = StepResources(plan(config()).config)
    assert taken.memory_of_backbone(OWN_TOWERS) > 0 and taken.gpus_of_backbone(OWN_TOWERS) == 0


# --- changed settings -------------------------------------------------------------------------------------------------


def test_unchanged_config_plans_nothing() -> None:
    assert not replanned(config())


def test_changed_option_plans_that_run_only() -> None:
    data = config()
    data["runs"]["cmer"]["options"]["margin"] = 0.3
    tables = {("table", name) for name in ("table1", "table2", "table4")}
    steps = {(step, "demo", "lite.cmer", "2022") for step in ("train", "embed", "heat_maps")}
    figures = {("figure", name) for name in ("recall_curves", "grad_cam")}
    assert replanned(data) == steps | tables | figures | {("report",)}


def test_printed_names_plan_only_what_shows_them() -> None:
    data = edited()
    data["datasets"]["demo"]["title"] = "Demo"
    data["backbones"]["lite"]["printed"] = "Lite"
    assert replanned(data) == ALL_TABLES | FIGURES | {("report",)}


def test_one_more_seed_plans_that_seed_only() -> None:
    data = edited(seeds=[2022, 2023])
    steps = {step for step in replanned(data) if step[0] not in ("table", "figure", "report", "validation")}
    assert steps == {(rule, "demo", run, "2023") for rule in ("train", "embed", "evaluate") for run in RUNS} | {
        ("split_validation", "demo", "2023")
    }
    added = set(plan(data).table_metrics("table1")) - set(plan(config()).table_metrics("table1"))
    assert added == {f"results/metrics/demo/{run}/seed2023.json" for run in TABLE_1}


def test_leaks_that_are_left_out_plan_trainings_and_what_follows() -> None:
    def exclude(*leaks: str) -> set[Step]:
        data = config()
        data["datasets"]["demo"]["exclude"] = list(leaks)
        return replanned(data)

    trainings = {(rule, "demo", run, "2022") for rule in ("train", "embed") for run in RUNS}
    maps = {("heat_maps", "demo", run, "2022") for run in ("lite.cmer_v1", "lite.cmer")}
    assert exclude("twins", "shared_captions") == trainings | maps | {("exclude_leaks", "demo", "2022")}
    assert exclude() == set()


def test_the_default_experiment_gives_others_no_settings() -> None:
    data = config("config/rsicd_part.yaml")
    before = planned(plan(data))
    assert plan(data).config.run("lite.clip_lora").training.warmup == 0.1
    assert "demo" not in str(before)


# --- what steps take --------------------------------------------------------------------------------------------------


def test_only_clip_towers_ask_for_a_gpu() -> None:
    paper = resources(plan(config("config/paper.yaml")))
    assert rules_of({step for step, taken in paper.items() if taken.get("gpu")}) == {
        "train",
        "embed",
        "profile",
        "heat_maps",
    }
    assert not any(taken.get("gpu") for taken in resources(plan(config("config/ci.yaml"))).values())


def test_a_run_that_trains_nothing_asks_for_no_gpu_and_little_time() -> None:
    paper = plan(config("config/paper.yaml"))
    trainings = {step: taken["gpu"] for step, taken in resources(paper).items() if step[0] == "train"}
    idle = {step for step in trainings if step[2].endswith(".zero_shot")}
    assert {trainings[step] for step in idle} == {0}
    assert {trainings[step] for step in trainings.keys() - idle} == {1}
    taken = StepResources(paper.config)
    minutes = {step: taken.minutes_of_training(step[2], step[1]) for step in trainings}
    assert max(minutes[step] for step in idle) < min(minutes[step] for step in trainings.keys() - idle)


def on_gpus() -> StepResources:
    """Trainings in two processes and in one, and a run that trains nothing, on towers that have a GPU each."""
    data = yaml.safe_load("""
        datasets: {demo: {source: demo}}
        backbones: {clip: {kind: open_clip, model: ViT-B-32, pretrained: openai}}
        training: {processes: 2, threads: 1}
        run_defaults: {datasets: [demo], backbones: [clip], method: linear_probe}
        runs: {two: {}, one: {training: {processes: 1}}, none: {method: zero_shot}}
    """)
    return StepResources(experiment.parse(data))


@pytest.mark.parametrize(("run", "processes", "gpus"), [("two", 2, 2), ("one", 1, 1), ("none", 1, 0)])
def test_a_training_has_a_gpu_for_each_of_its_processes(run: str, processes: int, gpus: int) -> None:
    assert on_gpus().processes(f"clip.{run}") == processes
    assert on_gpus().gpus_of_training(f"clip.{run}") == gpus
    assert on_gpus().gpus(f"clip.{run}") == 1, "its test split is embedded in one process"


def test_a_dataset_counts_by_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = StepResources(experiment.parse(config()))
    assert whole.thousands(["demo"]) == 10
    described = tmp_path / "results/data/demo/images.csv"
    described.parent.mkdir(parents=True)
    described.write_text(f"airport_1,airport_1.jpg,airport,train,224,224,{'0' * 64}\n" * 2000)
    assert 1.5 < whole.thousands(["demo"]) < 2.5
    assert whole.thousands(["demo", "demo"]) == 2 * whole.thousands(["demo"])
