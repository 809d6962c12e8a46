"""What Snakemake plans, asked from the real one by dry runs."""

from pathlib import Path
from typing import Any

import yaml
from workflow_project import ROOT, Plan, Project

RIVALS = {
    "lite.clip_adapter",
    "lite.clip_bitfit",
    "lite.clip_lora",
    "lite.cross_modal_adapter",
    "lite.pe_rsitr",
    "lite.single_language",
}
CMER = {"lite.cmer_v1", "lite.cmer_v2", "lite.cmer_d1", "lite.cmer_d2", "lite.cmer"}
PART = {"lite.mlp_probe_part", "lite.cmer_part"} | RIVALS
TABLE_1 = {"lite.linear_probe"} | CMER | PART


def run_row(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in config["runs"] if row["name"] == name)


def test_main_job_from_nothing(fresh: Project) -> None:
    plan = fresh.plan("results/table1.csv")
    once = ("draw_demo", "prepare_data", "augment_captions", "split_validation", "extract_features", "table")
    assert plan.counts == dict.fromkeys(once, 1) | dict.fromkeys(("train", "embed", "evaluate"), len(TABLE_1))
    assert plan.runs == TABLE_1


def test_finished_workflow_has_nothing_to_do(done: Project) -> None:
    assert done.plan().nothing


def test_changed_option_plans_that_run_only(project: Project) -> None:
    def change(config: dict[str, Any]) -> None:
        run_row(config, "lite.cmer")["options"]["margin"] = 0.3

    project.edit_config(change)
    plan = project.plan("results/table1.csv")
    assert plan.runs == {"lite.cmer"}
    assert plan.counts == {"train": 1, "embed": 1, "evaluate": 1, "table": 1}


def test_printed_names_plan_tables_only(project: Project) -> None:
    def change(config: dict[str, Any]) -> None:
        config["datasets"]["demo"]["title"] = "Demo"
        config["backbones"]["lite"]["printed"] = "Lite"

    project.edit_config(change)
    assert project.plan().counts == {"table": 6, "accuracy_cost": 1, "all": 1}


def test_one_more_seed_plans_that_seed_only(project: Project) -> None:
    project.edit_config(lambda config: config["seeds"].append(2023))
    plan = project.plan("results/table1.csv")
    each = len(TABLE_1)
    assert plan.counts == {"split_validation": 1, "train": each, "embed": each, "evaluate": each, "table": 1}
    assert "seed2022" not in "".join(plan.outputs)


def test_edited_method_plans_its_runs_only(project: Project) -> None:
    project.append("cmer/methods/linear_probe.py", "\nCHANGED = 1\n")
    plan = project.plan("results/table1.csv")
    assert plan.runs == {"lite.linear_probe", "lite.mlp_probe_part"}
    assert plan.counts == {"train": 2, "embed": 2, "evaluate": 2, "table": 1}


def test_comment_new_method_and_command_line_plan_nothing(project: Project) -> None:
    project.append("cmer/methods/cmer.py", "\n# a comment\n")
    project.append("cmer/cli/models.py", "\nCHANGED = 1\n")
    (project.folder / "cmer/methods/another.py").write_text("from cmer.methods.base import Method\n")
    assert project.plan().nothing


def test_edited_measure_trains_nothing(project: Project) -> None:
    project.append("cmer/retrieval/bootstrap.py", "\nCHANGED = 1\n")
    plan = project.plan("results/table1.csv")
    assert plan.counts["evaluate"] == len(TABLE_1)
    assert "train" not in plan.counts


def test_leaks_that_are_left_out_plan_trainings_and_what_follows(project: Project) -> None:
    def exclude(*leaks: str) -> Plan:
        project.edit_config(lambda config: config["datasets"]["demo"].update(exclude=list(leaks)))
        return project.plan("results/table1.csv")

    each = len(TABLE_1)
    again = {"exclude_leaks": 1, "train": each, "embed": each, "evaluate": each, "table": 1}
    assert exclude("twins", "shared_captions").counts == again
    assert exclude().nothing


def test_table_of_leaks_is_made_on_demand(project: Project) -> None:
    assert project.plan("results/data/leaks.csv").counts == {"leaks": 1}


def test_mistake_in_the_config_is_one_clean_message(project: Project) -> None:
    def change(config: dict[str, Any]) -> None:
        run_row(config, "lite.cmer")["backbone"] = "lit"

    project.edit_config(change)
    plan = project.snakemake("--dry-run")
    assert plan.code == 1
    assert "runs[lite.cmer].backbone: unknown lit; known are lite" in plan.text
    assert "Traceback" not in plan.text
    assert "File " not in plan.text


def test_overlay_writes_into_its_own_folder(fresh: Project) -> None:
    plan = fresh.plan("--configfile=config/ci.yaml")
    assert all(output.startswith("results/ci/") for output in plan.outputs)
    rules = {"draw_demo", "prepare_data", "split_validation", "augment_captions", "extract_features"}
    assert set(plan.counts) == rules | {"train", "embed", "evaluate", "table", "profile", "accuracy_cost", "all"}


def test_published_dataset_needs_no_file_of_this_machine(fresh: Project) -> None:
    plan = fresh.plan("--configfile=config/rsicd_lite.yaml")
    assert "draw_demo" not in plan.counts
    assert plan.counts["train"] == 3 * len(yaml.safe_load((ROOT / "config/rsicd_lite.yaml").read_text())["runs"])


def test_published_dataset_is_fetched_unless_the_user_has_it(fresh: Project, tmp_path: Path) -> None:
    run = {"name": "lite.linear_probe", "datasets": ["rsicd", "ucm"], "backbone": "lite", "method": "linear_probe"}
    config = {
        "results": "results/known",
        "datasets": {"rsicd": {"source": "rsicd"}, "ucm": {"source": "ucm", "root": "${CMER_DATA_ROOT}/ucm"}},
        "runs": [run],
        "tables": [{"number": 2, "datasets": ["rsicd", "ucm"], "runs": [run["name"]]}],
    }
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(config))
    targets = [f"results/known/data/{name}/images.csv" for name in ("rsicd", "ucm")]
    plan = fresh.plan(f"--configfile={overlay}", *targets)
    assert plan.counts == {"fetch_data": 1, "prepare_data": 2}
    assert set(plan.outputs) >= {f"results/known/data/rsicd/{name}" for name in ("images.tar", "dataset.json")}
    assert "results/known/data/ucm/images.tar" not in plan.outputs


def test_table_3_profiles_each_backbone_and_trains_for_its_figure_only(fresh: Project, tmp_path: Path) -> None:
    def plan(datasets: list[str], *targets: str) -> Plan:
        table = {"number": 3, "datasets": datasets, "runs": ["lite.linear_probe", "lite.cmer"]}
        overlay = tmp_path / "overlay.yaml"
        overlay.write_text(yaml.safe_dump({"results": "results/three", "tables": [table]}))
        return fresh.plan(f"--configfile={overlay}", *targets)

    alone = plan([])
    assert alone.counts == {"profile": 1, "table": 1, "all": 1}
    assert set(alone.outputs) >= {"results/three/efficiency/lite.json", "results/three/table3.csv"}
    whole = plan(["demo"])
    assert whole.counts.items() >= {"profile": 1, "table": 1, "accuracy_cost": 1, "train": 2, "evaluate": 2}.items()
    assert plan(["demo"], "results/three/table3.csv").counts == {"profile": 1, "table": 1}
    figure = plan(["demo"], "results/three/figures/accuracy_cost.png")
    assert figure.runs == {"lite.linear_probe", "lite.cmer"}
    assert "table" not in figure.counts


def test_dvc_keeps_every_output(whole: Plan) -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["workflow"]
    outs = {Path(path): settings for out in stage["outs"] for path, settings in out.items()}
    assert all(settings["persist"] for settings in outs.values())
    for output in map(Path, whole.outputs):
        assert output in outs or any(parent in outs for parent in output.parents), output
