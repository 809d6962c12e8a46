"""Results that travel: whoever clones the repository and pulls has nothing left to run, and what changes runs again."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from shared_project import Shared
from typer.testing import CliRunner

from cmer.cli.main import app

NOT_PUBLISHED = ("checkpoints", "embeddings")
TABLES = {"table": 5, "figure": 1, "report": 1, "all": 1}  # all but Table 3, which has no metrics
OTHER = {"train": 1, "embed": 1, "evaluate": 1} | TABLES
ONE_RUN = OTHER | {"heat_maps": 1, "figure": 2}
"""Steps of tiny.clip_lora, and of tiny.cmer, of which there are heat maps."""


@pytest.fixture
def pulled(ran: Shared, tmp_path: Path) -> Shared:
    """A clone of what was run, with everything pulled."""
    clone = ran.clone(tmp_path / "clone")
    clone.run("dvc", "pull", "demo")
    clone.run("python", "scripts/metadata.py", "restore", "demo")
    return clone


def test_fresh_clone_pulls_what_was_published_and_has_nothing_to_do(published: Shared, tmp_path: Path) -> None:
    clone = published.clone(tmp_path / "clone")
    pull = clone.make("pull")
    assert pull.code == 0, pull.text
    assert "nothing is left to do" in pull.text
    assert clone.plan("results/table1.csv").nothing
    large = published.files(*NOT_PUBLISHED)
    assert large
    assert clone.files() == {path: data for path, data in published.files().items() if path not in large}


def test_fresh_clone_without_its_remote_says_so(published: Shared, tmp_path: Path) -> None:
    clone = published.clone(tmp_path / "clone")
    (clone.folder / "published").rename(clone.folder / "elsewhere")
    pull = clone.make("pull")
    assert pull.code != 0
    assert "Nothing was pulled from the remote published" in pull.text
    assert "Traceback" not in pull.text
    assert not clone.files()


def test_fresh_clone_of_a_remote_that_lacks_a_folder_says_so(published: Shared, tmp_path: Path) -> None:
    clone = published.clone(tmp_path / "clone")
    lock = (clone.folder / "dvc.lock").read_text()
    md5 = re.findall(r"path: results/metrics\n.*\n *md5: (\w+\.dir)", lock)[0]
    (clone.folder / "published/files/md5" / md5[:2] / md5[2:]).unlink()
    pull = clone.make("pull")
    assert pull.code != 0
    assert "Not all was pulled from the remote published" in pull.text
    assert "nothing is left to do" not in pull.text


@pytest.mark.slow
def test_fresh_clone_makes_again_what_was_changed_but_not_published(published: Shared, tmp_path: Path) -> None:
    """Neither checkpoints nor embeddings are there, yet only those of the changed run are missed."""
    clone = published.clone(tmp_path / "clone")
    assert clone.make("pull").code == 0
    clone.edit_config(_another_learning_rate)
    plan = clone.plan()
    assert plan.runs == {"tiny.cmer"}
    assert plan.counts == ONE_RUN


@pytest.mark.slow
def test_fresh_clone_touches_results_of_the_same_code_only(published: Shared, tmp_path: Path) -> None:
    """Metadata without checksums leave Snakemake the files' times, which a pull does not keep."""
    origin = published.clone(tmp_path / "origin")
    origin.run("dvc", "config", "--local", "cache.dir", str(published.folder / ".dvc/cache"))
    origin.run("dvc", "checkout", "demo")
    records = origin.folder / "results/snakemake.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    for line in lines:
        line["record"]["input_checksums"] = {}
    records.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    origin.run("dvc", "commit", "--force", "demo")
    origin.run("dvc", "remote", "add", "--default", "site", str(tmp_path / "site"))
    origin.run("dvc", "push", "demo")
    origin.commit()

    clone = origin.clone(tmp_path / "clone")
    clone.run("dvc", "pull", "demo")
    late = clone.folder / "results/data/demo/images.csv"
    os.utime(late, (late.stat().st_mtime + 5,) * 2)
    clone.append(
        "cmer/methods/zero_shot/model.py", "\nCHANGED = 1\n"
    )  # which no result depends on; the gate cannot know
    assert "Some steps are left to run" in clone.make("pull").text
    assert clone.plan().counts["train"] == 3
    clone.run("git", "checkout", "cmer")
    assert "nothing is left to do" in clone.make("pull").text
    assert clone.plan().nothing


@pytest.mark.slow
def test_fresh_clone_refuses_to_publish_uncommitted_changes(published: Shared, tmp_path: Path) -> None:
    clone = published.clone(tmp_path / "clone")
    clone.append("cmer/methods/cmer/model.py", "\nCHANGED = 1\n")
    assert "Commit your changes first" in clone.make("publish").text
    clone.run("git", "checkout", "cmer")
    (clone.folder / "cmer/methods/cmer/new.py").write_text("NEW = 1\n")
    made = clone.make("publish")
    assert made.code != 0
    assert "Commit your changes first" in made.text


@pytest.mark.slow
def test_fresh_clone_tells_how_every_file_was_made(pulled: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pulled.folder)
    commit = pulled.run("git", "rev-parse", "HEAD~1").strip()
    for path in pulled.files():
        if path == "results/snakemake.jsonl":  # of all others
            continue
        shown = CliRunner().invoke(app, ["record", path], catch_exceptions=False)
        facts = {word for word, _, fact in (line.strip().partition(" ") for line in shown.output.splitlines()) if fact}
        expected = {"file", "versions", "commit", "host", "time", "command", "record"}
        if "validation" not in path:  # drawn from what its command names
            expected.add("spec")
        if not path.startswith(("results/features", "results/efficiency", "results/table3")):  # costs have no seeds
            expected.add("seed")
        assert shown.exit_code == 0 and expected <= facts, (path, shown.output)
        assert commit in shown.output


@pytest.mark.slow
def test_fresh_clone_pulls_from_s3(ran: Shared, bucket: str, tmp_path: Path) -> None:
    origin = ran.clone(tmp_path / "origin")
    origin.run("dvc", "pull", "demo")
    origin.run("dvc", "remote", "add", "--default", "s3", "s3://results/cmer")
    origin.run("dvc", "remote", "modify", "s3", "endpointurl", bucket)
    origin.run("dvc", "push", "demo")
    origin.commit()

    clone = origin.clone(tmp_path / "clone")
    pull = clone.make("pull")
    assert "Pulled from the remote s3; nothing is left to do." in pull.text, pull.text
    assert clone.files() == ran.files()
    assert clone.plan().nothing

    clone.run("dvc", "remote", "modify", "s3", "endpointurl", "http://127.0.0.1:9")
    (clone.folder / ".dvc/cache").rename(tmp_path / "cache")
    (clone.folder / "results/snakemake.jsonl").rename(tmp_path / "snakemake.jsonl")
    unreachable = clone.make("pull")
    assert unreachable.code != 0
    assert "Nothing was pulled from the remote s3" in unreachable.text
    assert "Traceback" not in unreachable.text


@pytest.mark.slow
def test_fresh_clone_pulls_tables_alone(ran: Shared, tmp_path: Path) -> None:
    clone = ran.clone(tmp_path / "clone")
    clone.run("dvc", "pull", "results/table1.csv", "results/table3.csv")
    assert set(clone.files()) == {"results/table1.csv", "results/table3.csv"}
    assert clone.files().items() <= ran.files().items()


@pytest.mark.slow
def test_fresh_clone_with_another_learning_rate_trains_once(pulled: Shared) -> None:
    assert pulled.plan().nothing
    before = pulled.files("checkpoints")
    pulled.edit_config(_another_learning_rate)
    plan = pulled.plan()
    assert plan.runs == {"tiny.cmer"}
    assert plan.counts == ONE_RUN
    done = pulled.snakemake("--cores=2")
    assert done.code == 0, done.text
    after = pulled.files("checkpoints")
    changed = {path for path in before if after[path] != before[path]}
    assert changed == {"results/checkpoints/demo/tiny.cmer/seed2022.safetensors"}
    assert pulled.plan().nothing
    assert "results/mr/demo/tiny.cmer/seed2022.json" in pulled.run("dvc", "metrics", "diff")


@pytest.mark.slow
def test_fresh_clone_with_an_edited_source_runs_its_dependents(pulled: Shared) -> None:
    pulled.append("cmer/methods/clip_lora/model.py", "\nCHANGED = 1\n")
    plan = pulled.plan()
    assert plan.runs == {"tiny.clip_lora"}
    assert plan.counts == OTHER | {"profile": 1, "table": 6}  # what its step costs may have changed too


@pytest.mark.slow
def test_fresh_clone_notices_a_changed_byte(pulled: Shared) -> None:
    """Snakemake takes the file for a new input of what reads it; DVC knows that it is not what was made."""
    file = pulled.folder / "results/checkpoints/demo/tiny.cmer/seed2022.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    plan = pulled.plan()
    assert plan.runs == {"tiny.cmer"}
    assert plan.counts == {key: count for key, count in ONE_RUN.items() if key != "train"}
    assert re.search(r"modified: +results/checkpoints", pulled.run("dvc", "status"))
    pulled.run("dvc", "checkout", "--force", "demo")
    assert pulled.plan().nothing


@pytest.mark.slow
def test_fresh_clone_shows_metrics_and_plots(pulled: Shared) -> None:
    assert "results/mr/demo/tiny.cmer/seed2022.json" in pulled.run("dvc", "metrics", "show")
    shown = json.loads(pulled.run("dvc", "metrics", "show", "--json", "results/mr"))[""]["data"]
    for run in ("tiny.cmer", "lite.cmer_text_side", "tiny.clip_lora"):
        metrics = json.loads(pulled.files()[f"results/metrics/demo/{run}/seed2022.json"])
        mr = {protocol: found["mr"] for protocol, found in metrics["protocols"].items()}
        assert shown[f"results/mr/demo/{run}/seed2022.json"]["data"]["mr"] == mr
    pulled.run("dvc", "plots", "show", "--out=plots")
    page = (pulled.folder / "plots/index.html").read_text()
    for plot in ("accuracy", "accuracy_memory", "accuracy_time"):
        assert f"vegaEmbed('#{plot}', spec)" in page
    assert '"run": "lite.cmer_text_side"' in page
    assert "".join(page.split()).count('"text":{"field":"run"}') == 2  # points have names


@pytest.mark.slow
def test_fresh_clone_pulls_one_experiment_alone_and_has_nothing_to_do(both: Shared, tmp_path: Path) -> None:
    clone = both.clone(tmp_path / "clone")
    pull = clone.call("scripts/pull", "ci")
    assert "Pulled from the remote site; nothing is left to do." in pull.text, pull.text
    assert clone.files() == both.files("ci")
    assert clone.plan("--configfile=config/ci.yaml").nothing
    assert clone.plan("--config", "results=results/other").counts["train"] == 3, "the other one is not there"
    assert clone.run("dvc", "status", "experiment@ci").strip() == "Data and pipelines are up to date."

    shown = json.loads(clone.run("dvc", "metrics", "show", "--json", "results/ci/mr"))[""]["data"]
    assert set(shown) == {path for path in clone.files() if path.startswith("results/ci/mr/")}

    clone.append("cmer/methods/clip_lora/model.py", "\nCHANGED = 1\n")
    assert clone.plan("--configfile=config/ci.yaml").runs == {"tiny.clip_lora"}
    clone.run("git", "checkout", "cmer")
    pull = clone.make("pull", "EXPERIMENT=demo")
    assert "nothing is left to do" in pull.text, pull.text
    assert clone.plan().nothing and clone.plan("--configfile=config/ci.yaml").nothing
    assert clone.files() == both.files()


@pytest.mark.slow
def test_fresh_clone_keeps_other_experiments_records_when_it_pulls(both: Shared, tmp_path: Path) -> None:
    """Results that were made here stay finished, and only their own records are saved with an experiment."""
    clone = both.clone(tmp_path / "clone")
    made = clone.snakemake("--cores=2", "--config", "results=results/mine", "--", "results/mine/data/demo/images.csv")
    assert made.code == 0, made.text
    assert clone.make("pull", "EXPERIMENT=ci").code == 0
    assert clone.plan("--config", "results=results/mine", "--", "results/mine/data/demo/images.csv").nothing
    before = (clone.folder / "results/ci/snakemake.jsonl").read_bytes()
    clone.run("python", "scripts/metadata.py", "save", "ci")
    assert (clone.folder / "results/ci/snakemake.jsonl").read_bytes() == before


def test_fresh_clone_names_the_experiments_that_can_be_pulled(published: Shared, tmp_path: Path) -> None:
    clone = published.clone(tmp_path / "clone")
    pull = clone.call("scripts/pull", "rsicd_lite")
    assert pull.code != 0
    assert "No results of rsicd_lite are tracked here: `dvc repro experiment@rsicd_lite`" in pull.text
    unknown = clone.call("python", "scripts/metadata.py", "restore", "unknown")
    assert unknown.code != 0 and "dvc.yaml has no experiment 'unknown': demo, ci, rsicd_lite" in unknown.text


def _another_learning_rate(config: dict[str, Any]) -> None:
    runs, usual = config["runs"], config["training"]["lr"]
    runs["cmer"]["training"] = {"lr": 0.001}
    runs["cmer_text_side"]["training"] = {"lr": usual}  # it is based on the other
