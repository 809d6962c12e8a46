"""Archives in a config: mistakes in them, and what the workflow plans."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from config_cases import MINIMAL
from planned_steps import changed, plan, planned, resources, rules_of

from cmer.config.base import ConfigError
from cmer.config.experiment import parse

OWN = {"folder": "/data/images", "checkpoint": "rsicd_lite_cmer", "store": "s3://bucket/mine.lance"}


def config(**archive: Any) -> dict[str, Any]:
    """The minimal config with an archive; a key of None is left out."""
    entry = {key: value for key, value in (OWN | archive).items() if value is not None}
    return deepcopy(MINIMAL) | {"archives": {"mine": entry}}


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        ({"folder": None}, ["archives.mine.folder", "required"]),
        ({"store": None}, ["archives.mine.store", "required"]),
        ({"checkpoint": None}, ["archives.mine", "either `run` or `checkpoint`"]),
        ({"run": "tiny.cmer"}, ["archives.mine", "either `run` or `checkpoint`"]),
        ({"run": "cmer", "checkpoint": None}, ["archives.mine.run", "unknown cmer; known are tiny.cmer"]),
        ({"shards": 0}, ["archives.mine.shards", "greater than or equal to 1"]),
        ({"tiling": {"tile": 64, "overlap": 60}}, ["archives.mine.tiling", "at most half of tile"]),
        ({"tile": 64}, ["archives.mine", "unknown key 'tile'", "tiling"]),
        ({"folder": "results/images"}, ["archives.mine", "inside `results`"]),
        ({"labels": "results/labels.csv"}, ["archives.mine", "inside `results`"]),
    ],
)
def test_a_mistake_is_named(archive: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(config(**archive))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_run_on_several_datasets_is_ambiguous() -> None:
    data = config(run="tiny.cmer", checkpoint=None)
    data["datasets"]["more"] = {"source": "demo"}
    data["run_defaults"]["datasets"] = ["demo", "more"]
    with pytest.raises(ConfigError, match=r"archives\.mine\.run: tiny\.cmer is trained on demo, more; give the file"):
        parse(data)


def test_archives_need_no_runs_and_one_of_the_two_is_needed() -> None:
    alone = {"archives": config()["archives"]}
    steps = {step for step in planned(plan(alone)) if "mine" in step}
    assert steps == {("list_images", "mine"), ("embed_shard", "mine", "0"), ("build_archive", "mine")}
    with pytest.raises(ConfigError, match=r"needs `runs`, to train and evaluate them, or `archives`"):
        parse({"datasets": MINIMAL["datasets"]})
    with pytest.raises(ConfigError, match=r"runs\.cmer\.datasets: unknown demo; known are none"):
        parse({name: value for name, value in MINIMAL.items() if name != "datasets"})
    with pytest.raises(ConfigError, match=r"archives\.mine\.run: unknown tiny\.cmer; known are none"):
        parse({"archives": config(run="tiny.cmer", checkpoint=None)["archives"]})


def test_each_step_has_the_settings_that_it_reads() -> None:
    def steps(**archive: Any) -> set[str]:
        return rules_of(changed(planned(plan(config())), planned(plan(config(**archive)))))

    assert steps() == set()
    assert steps(store="elsewhere.lance") == {"build_archive"}
    assert steps(labels="/data/labels.csv") == {"list_images"}
    assert steps(shards=7) == {"list_images", "embed_shard", "build_archive"}
    assert steps(tiling={"tile": 256}) == steps(checkpoint="other") == {"embed_shard", "build_archive"}


def test_the_model_is_the_runs_checkpoint_or_a_file_or_a_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MODELS", str(tmp_path))
    trained = plan(config(run="tiny.cmer", checkpoint=None) | {"seeds": [7, 8]})
    path = "results/checkpoints/demo/tiny.cmer/seed7.safetensors"
    assert (trained.archive_run("mine"), trained.archive_model("mine")) == (path, [path])
    file = plan(config(checkpoint="$MODELS/x.safetensors"))
    assert file.archive_model("mine") == [file.archive_run("mine")] == [f"{tmp_path}/x.safetensors"]
    named = plan(config())
    assert (named.archive_run("mine"), named.archive_model("mine")) == ("rsicd_lite_cmer", [])
    assert named.archive_store("mine") == OWN["store"]
    assert plan(config(store="$MODELS/a.lance")).archive_store("mine") == f"{tmp_path}/a.lance"


def test_a_shard_takes_what_its_model_takes() -> None:
    clip = config(run="clip.cmer", checkpoint=None, threads=6)
    clip["backbones"] = {"clip": {"kind": "open_clip", "model": "ViT-B-32"}}
    clip["run_defaults"]["backbones"], clip["tables"] = ["clip"], {}
    taken = resources(plan(clip))
    assert taken["embed_shard", "mine", "0"]["gpu"] == 1
    assert resources(plan(config()))["embed_shard", "mine", "0"]["gpu"] == 0
