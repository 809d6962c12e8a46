"""What Snakemake plans, asked from the real one by dry runs. What each step reads is tested in tests/test_plan.py."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from planned_steps import TABLE_1
from workflow_project import Plan, Project, published_experiments

STEPS = ("train", "embed", "evaluate")
"""Rules of every run and seed."""


def test_main_job_from_nothing(fresh: Project) -> None:
    plan = fresh.plan("results/table1.csv")
    once = ("draw_demo", "prepare_data", "augment_captions", "split_validation", "extract_features", "table")
    assert plan.counts == dict.fromkeys(once, 1) | dict.fromkeys(("train", "embed", "evaluate"), len(TABLE_1))
    assert plan.runs == TABLE_1


def test_a_config_of_archives_alone_plans_nothing_else(fresh: Project) -> None:
    archive = {"folder": "/data/images", "checkpoint": "rsicd_lite_cmer", "store": "s3://bucket/mine", "shards": 2}
    (fresh.folder / "mine.yaml").write_text(yaml.safe_dump({"archives": {"mine": archive}}))
    plan = fresh.plan("--configfile=mine.yaml")
    assert plan.counts == {"list_images": 1, "embed_shard": 2, "build_archive": 1, "all": 1}


def test_finished_workflow_has_nothing_to_do(done: Project) -> None:
    assert done.plan().nothing


def test_changed_option_plans_that_run_only(project: Project) -> None:
    def change(config: dict[str, Any]) -> None:
        config["runs"]["cmer"]["options"]["margin"] = 0.3

    project.edit_config(change)
    plan = project.plan("results/table1.csv")
    assert plan.runs == {"lite.cmer"}
    assert plan.counts == {"train": 1, "embed": 1, "evaluate": 1, "table": 1}


def test_sources_plan_the_runs_that_execute_them_only(project: Project) -> None:
    project.append("cmer/methods/cmer/model.py", "\n# a comment\n")
    project.append("cmer/cli/models.py", "\nCHANGED = 1\n")
    another = project.folder / "cmer/methods/another"
    another.mkdir()
    (another / "model.py").write_text("from cmer.methods.base import Method\n")
    (another / "options.py").write_text("from cmer.config.methods import MethodOptions\n")
    assert project.plan().nothing
    project.append("cmer/methods/linear_probe/model.py", "\nCHANGED = 1\n")
    plan = project.plan("results/table1.csv")
    assert plan.runs == {"lite.linear_probe", "lite.mlp_probe_part"}
    assert plan.counts == {"train": 2, "embed": 2, "evaluate": 2, "table": 1}


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
        config["runs"]["cmer"]["backbones"] = ["lit"]

    project.edit_config(change)
    plan = project.snakemake("--dry-run")
    assert plan.code == 1
    assert "runs.cmer.backbones: unknown lit; known are lite" in plan.text
    assert "Traceback" not in plan.text
    assert "File " not in plan.text


def test_published_dataset_is_fetched_unless_the_user_has_it(fresh: Project, tmp_path: Path) -> None:
    mine = {
        "results": "results/known",
        "datasets": {"rsicd": {"source": "rsicd"}, "ucm": {"source": "ucm", "root": "${CMER_DATA_ROOT}/ucm"}},
        "backbones": {"lite": {"kind": "lite"}},
        "runs": {"linear_probe": {"method": "linear_probe", "datasets": ["rsicd", "ucm"], "backbones": ["lite"]}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    targets = [f"results/known/data/{name}/images.csv" for name in ("rsicd", "ucm")]
    plan = fresh.plan(f"--configfile={tmp_path / 'mine.yaml'}", *targets)
    assert plan.counts == {"fetch_data": 1, "prepare_data": 2}
    assert set(plan.outputs) >= {f"results/known/data/rsicd/{name}" for name in ("images.tar", "dataset.json")}
    assert "results/known/data/ucm/images.tar" not in plan.outputs


def test_texts_about_images_are_written_before_the_runs_that_read_them(fresh: Project) -> None:
    plan = fresh.plan("--configfile=config/trsllava.yaml", "results/trsllava/metrics/rsitmd/llava_bm25/seed2022.json")
    once = ("fetch_data", "prepare_data", "augment_captions", "split_validation", "caption_images")
    assert plan.counts == dict.fromkeys((*once, "train", "embed", "evaluate"), 1)
    assert "results/trsllava/rich/rsitmd/llava.jsonl" in plan.outputs


def test_published_backbones_are_compared_under_the_same_methods(fresh: Project) -> None:
    plan = fresh.plan("--configfile=config/rs_clip.yaml", "results/rs_clip/table1.csv")
    once = ("fetch_data", "prepare_data", "augment_captions", "table")
    each = 9 * 5 * 3  # backbones, methods, seeds
    assert plan.counts == dict.fromkeys(once, 1) | {"split_validation": 3} | dict.fromkeys(STEPS, each)
    assert {"georsclip_b32.zero_shot", "mobileclip2_b.cmer", "siglip2_b16.clip_lora"} <= plan.runs


def test_changed_ranks_are_compared_again(project: Project) -> None:
    """Tables read them beside the metrics, under a name that no command line gives."""
    (project.folder / "results/metrics/demo/lite.cmer_v1/seed2022.ranks.csv").write_text("other ranks")
    plan = project.plan("results/table1.csv")
    assert plan.counts == {"table": 1}


# --- which config is read ---------------------------------------------------------------------------------------------


def test_another_config_is_read_instead_and_has_results_of_its_own(fresh: Project) -> None:
    plan = fresh.plan("--configfile=config/ci.yaml")
    assert all(output.startswith("results/ci/") for output in plan.outputs)
    rules = {"draw_demo", "prepare_data", "split_validation", "augment_captions", "extract_features"}
    assert set(plan.counts) == rules | {
        "train",
        "embed",
        "evaluate",
        "heat_maps",
        "table",
        "profile",
        "figure",
        "report",
        "all",
    }
    assert plan.runs == {"tiny.cmer", "tiny.clip_lora", "lite.cmer_text_side"}
    assert "results/ci/table4.csv" in plan.outputs and "results/ci/table2.csv" not in plan.outputs


def test_keys_on_the_command_line_change_the_default_config(fresh: Project) -> None:
    plan = fresh.plan("--config", "results=results/other", "seeds=[7]", "--", "results/other/table1.csv")
    assert plan.runs == TABLE_1
    assert "results/other/checkpoints/demo/lite.cmer/seed7.safetensors" in plan.outputs
    assert all(output.startswith("results/other/") for output in plan.outputs)


@pytest.mark.parametrize("options", [(), ("--replace-workflow-config",)])
def test_keys_on_the_command_line_change_another_config(fresh: Project, options: tuple[str, ...]) -> None:
    plan = fresh.plan("--configfile=config/ci.yaml", "--config", "results=results/other", *options)
    assert plan.runs == {"tiny.cmer", "tiny.clip_lora", "lite.cmer_text_side"}
    assert all(output.startswith("results/other/") for output in plan.outputs)


def test_config_is_that_of_the_command_line_alone_where_the_users_says_so(fresh: Project) -> None:
    """The default config is dropped with it, and what is left is no experiment."""
    plan = fresh.snakemake("--dry-run", "--replace-workflow-config", "--config", "results=results/other")
    assert plan.code == 1
    assert "config is not valid:\n  - needs `runs`, to train and evaluate them, or `archives`" in plan.text
    assert "Traceback" not in plan.text


# Stand-ins for SLURM: one runs a job at once, then says that it was refused, which ends the workflow; the other runs
# what a job step is.
SBATCH = """#!/bin/sh
for last; do :; done
echo "$last" > job.txt
sh -c "${last#--wrap=}" > job.log 2>&1
find results -name images.tar > made.txt
echo 'refused by the test' >&2
exit 1
"""
SRUN = """#!/bin/sh
while [ "$1" != "${1#-}" ] || [ "$1" != "${1#[0-9]}" ]; do shift; done
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "results"),
    [
        (("--configfile=config/ci.yaml",), "results/ci"),
        (("--configfile=config/ci.yaml", "--replace-workflow-config"), "results/ci"),
        (("--config", "results=results/other"), "results/other"),
    ],
)
def test_a_job_of_a_cluster_reads_the_same_config(tmp_path: Path, arguments: tuple[str, ...], results: str) -> None:
    project = Project.copy(tmp_path / "project")
    project.programs = tmp_path / "bin"
    project.programs.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sinfo": "", "sacct": "", "scontrol": ""}.items():
        (project.programs / name).write_text(text or "#!/bin/sh\n")
        (project.programs / name).chmod(0o755)
    cluster = ("--profile", "profiles/slurm", "--slurm-no-account", "--slurm-status-command", "squeue")
    target = f"{results}/data/demo/images.tar"
    project.snakemake(*cluster, "--retries=0", *arguments, "--", target)
    assert ("--configfiles" in (project.folder / "job.txt").read_text()) == (results == "results/ci")
    assert (project.folder / "made.txt").read_text().split() == [target], (project.folder / "job.log").read_text()


# --- what DVC keeps ---------------------------------------------------------------------------------------------------


def test_dvc_keeps_every_output_of_the_demo(whole: Plan) -> None:
    """Of the other experiments, it keeps the whole folders of results and logs."""
    outs = published_experiments()["demo"].outs
    for file in map(Path, whole.outputs + whole.logs):
        assert file in outs or any(parent in outs for parent in file.parents), file
