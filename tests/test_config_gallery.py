"""Galleries in a config, and what the workflow plans for them."""

import copy
import json
from typing import Any

import pytest
from config_cases import MINIMAL
from planned_steps import changed, config, plan, planned, rules

from cmer.config.base import ConfigError
from cmer.config.experiment import parse


def with_gallery(**settings: Any) -> dict[str, Any]:
    return MINIMAL | {"figures": {"bad": {"kind": "gallery", "runs": ["tiny.cmer"]} | settings}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"runs": ["tiny.nope"], "group": "near"}, ["figures.bad.runs", "'tiny.nope'", "known are tiny.cmer"]),
        ({}, ["figures.bad: a gallery needs either `group`", "best, near or worst", "`queries`"]),
        ({"group": "near", "queries": ["a pond"]}, ["figures.bad", "give one of them"]),
        ({"group": "bad"}, ["figures.bad.group", "'best', 'near' or 'worst'"]),
        ({"group": "near", "runs": ["tiny.*"]}, ["figures.bad", "one run, not tiny.cmer, tiny.probe; name one"]),
        ({"group": "near", "runs": ["tiny.cmer.querybank"]}, ["figures.bad", "tiny.cmer.querybank is reranked"]),
        ({"group": "near", "protocol": "predicted"}, ["queries of tiny.cmer under predicted; choose none, oracle"]),
        ({"group": "near", "runs": ["tiny.rich"]}, ["queries of tiny.rich under none; name another run"]),
        ({"group": "near", "dataset": "more"}, ["figures.bad.dataset: unknown more; known are demo"]),
    ],
)
def test_a_mistake_in_a_gallery_is_named(settings: dict[str, Any], words: list[str]) -> None:
    data = with_gallery(**settings)
    if "tiny.*" in settings.get("runs", []):
        data["runs"] = MINIMAL["runs"] | {"probe": {"method": "linear_probe"}}
    if "tiny.rich" in settings.get("runs", []):
        data["captioners"] = {"llava": {"kind": "attributes", "backbone": {"kind": "tiny", "threads": 1}}}
        data["runs"] = MINIMAL["runs"] | {"rich": {"method": "trsllava", "options": {"query": "rich"}}}
    if "tiny.cmer.querybank" in settings.get("runs", []):
        data["rerankers"] = {"querybank": {"kind": "querybank", "runs": ["*"]}}
    with pytest.raises(ConfigError) as error:
        parse(data)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("kind", "settings", "word"),
    [
        ("recall_curves", {"queries": ["a pond"]}, "queries"),
        ("grad_cam", {"group": "near"}, "group"),
        ("accuracy_cost", {"protocol": "oracle", "group": "near"}, "group, protocol"),
    ],
)
def test_settings_that_a_kind_does_not_read_are_named(kind: str, settings: dict[str, Any], word: str) -> None:
    figure = {"kind": kind, "runs": ["tiny.cmer"]} | settings
    with pytest.raises(ConfigError, match=rf"figures\.x: figures of kind {kind} do not read {word}; remove it"):
        parse(MINIMAL | {"figures": {"x": figure}})
    assert parse(MINIMAL | {"figures": {"x": {"kind": "grad_cam", "runs": ["tiny.cmer"], "queries": ["a pond"]}}})


def demo(**settings: Any) -> dict[str, Any]:
    data = copy.deepcopy(config("config/ci.yaml"))
    data["figures"]["bad"] = {"kind": "gallery", "runs": ["tiny.cmer"], "group": "near"} | settings
    return data


def test_a_gallery_reads_embeddings_captions_and_pictures() -> None:
    whole = plan(demo(protocol="oracle"))
    assert whole.figure_embeddings("bad") == ["results/ci/embeddings/demo/tiny.cmer/seed2022.safetensors"]
    assert whole.figure_images("bad") == ["results/ci/data/demo/images.csv"]
    assert whole.figure_queries("bad") == ["results/ci/captions/demo.queries.csv"]
    assert whole.figure_pictures("bad") == [f"results/ci/data/demo/{name}" for name in ("images.tar", "dataset.json")]
    assert "figure_pictures" in next(rule for rule in rules() if rule.name == "figure").inputs
    assert whole.figure_pictures("grad_cam") == whole.figure_metrics("bad") == []
    spec = json.loads(whole.figure_spec("bad"))
    assert (spec["group"], spec["protocol"], spec["queries"]) == ("near", "oracle", [])
    assert spec["pictures"] == json.loads(whole.data_spec("demo"))
    assert "pictures" not in json.loads(whole.figure_spec("accuracy_cost"))


def test_changed_settings_of_a_gallery_plan_that_figure_only() -> None:
    before = planned(plan(demo()))
    assert ("figure", "bad") in before
    for settings in ({"group": "worst"}, {"protocol": "oracle"}, {"group": None, "queries": ["a pond"]}):
        assert changed(before, planned(plan(demo(**settings)))) == {("figure", "bad")}
    rows = {("figure", "bad"), ("report",)}
    assert changed(planned(plan(config("config/ci.yaml"))), before) == rows
