"""What the workflow plans for captioners and for runs that read rich texts."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from planned_steps import changed, config, plan, planned, resources, rules_of

from cmer.captioning.build import build
from cmer.config import experiment
from cmer.config.base import ConfigError
from cmer.config.captioners import parse_captioner
from cmer.plan import Plan

CONFIG: dict[str, Any] = yaml.safe_load("""
datasets: {demo: {source: demo}}
backbones: {tiny: {kind: tiny}}
captioners:
  own: {kind: jsonl, path: "${OWN}/rich.jsonl"}
  llava: {kind: vlm, model: folder, prompts: {sentence: Describe it.}}
  attributes: {kind: attributes, backbone: {kind: tiny, threads: 1}}
run_defaults: {datasets: [demo], method: trsllava}
runs:
  probe: {method: linear_probe, backbones: [tiny]}
  llava: {backbones: [tiny]}
  own: {backbones: [tiny], options: {captioner: own}}
  words: {options: {captioner: own, encoder: bm25}}
""")


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN", "/mine")


def edited(*keys: str, to: Any) -> Plan:
    data: Any = deepcopy(CONFIG)
    place = data
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    return plan(data)


def test_a_changed_prompt_replans_its_captioning_and_what_reads_the_texts() -> None:
    before = planned(plan(CONFIG))
    after = planned(edited("captioners", "llava", "prompts", to={"sentence": "Describe it well."}))
    own_texts = ("caption_images", "demo", "llava")
    assert changed(before, after) == {own_texts, *((rule, "demo", "tiny.llava", "2022") for rule in ("train", "embed"))}


def test_another_reduction_replans_the_run_alone() -> None:
    after = planned(edited("runs", "words", "options", "reduce", to="mean"))
    assert changed(planned(plan(CONFIG)), after) == {(rule, "demo", "words", "2022") for rule in ("train", "embed")}


def test_texts_are_an_input_of_the_runs_that_read_them_only() -> None:
    made = plan(CONFIG)
    assert made.rich_of_run("tiny.llava", "demo") == ["results/rich/demo/llava.jsonl"]
    assert made.rich_of_run("words", "demo") == ["results/rich/demo/own.jsonl"]
    assert made.rich_of_run("tiny.probe", "demo") == []
    assert made.features_of_run("tiny.llava", "demo") == []
    assert made.captioner_files("own") == ["/mine/rich.jsonl"] and made.captioner_files("llava") == []


def test_a_captioners_settings_are_part_of_the_spec_of_its_runs() -> None:
    spec = json.loads(plan(CONFIG).run_spec("words", "demo", "2022"))
    assert spec["captioner"]["path"] == "${OWN}/rich.jsonl" and spec["backbone"] is None
    assert json.loads(plan(CONFIG).run_spec("tiny.probe", "demo", "2022"))["captioner"] is None
    captioning = json.loads(plan(CONFIG).caption_spec("demo", "attributes"))
    assert captioning["captioner"]["backbone"]["kind"] == "tiny" and captioning["dataset"]["title"] == "demo"


def test_only_a_captioner_that_runs_a_large_model_asks_for_a_gpu() -> None:
    taken = resources(plan(CONFIG))
    gpus = {step[2]: given["gpu"] for step, given in taken.items() if step[0] == "caption_images"}
    assert gpus == {"own": 0, "llava": 1, "attributes": 0}
    clip = {"kind": "attributes", "backbone": {"kind": "open_clip", "model": "ViT-B-32"}}
    assert resources(edited("captioners", "attributes", to=clip))["caption_images", "demo", "attributes"]["gpu"] == 1
    assert {given["gpu"] for step, given in taken.items() if step[0] == "train"} == {0}


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("captioners", "own"), {"kind": "gpt"}, "captioners.own.kind: unknown captioner kind 'gpt'; known are"),
        (("captioners", "own"), {"path": "x.jsonl"}, "captioners.own: a mapping with the field 'kind' is required"),
        (("captioners", "own", "path"), "x.json", "captioners.own.path: "),
        (("captioners", "llava", "prompts"), {}, "captioners.llava.prompts: Input should have at least one value"),
        (
            ("runs", "own", "options", "captioner"),
            "mine",
            "runs.tiny.own.options.captioner: unknown mine; known are own",
        ),
        (("runs", "words", "backbones"), ["tiny"], "runs.words.backbones: trsllava has its own towers"),
        (("runs", "llava", "training"), {"inputs": "stored"}, "runs.llava: trsllava reads rich texts; remove"),
    ],
)
def test_mistakes_are_named(keys: tuple[str, ...], value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        edited(*keys, to=value)
    assert message in str(error.value)


def test_the_published_experiment_captions_both_datasets() -> None:
    made = plan(config("config/trsllava.yaml"))
    steps = planned(made)
    assert {step for step in steps if step[0] == "caption_images"} == {
        ("caption_images", dataset, name) for dataset in ("rsitmd", "rsicd") for name in ("llava", "attributes")
    }
    assert {"caption_images", "train", "embed", "evaluate", "table"} <= rules_of(set(steps))
    rich = {run.name for run in made.config.expanded if run.options.rich and run.options.rich.query}
    for table in made.config.tables.values():
        runs = {run.name for run in made.config.matching(table.runs)}
        assert (runs <= rich) == (table.protocols == ["rich"]) and (runs <= rich or not runs & rich)


def test_the_project_reads_its_own_config() -> None:
    assert experiment.read([Path(__file__).parents[1] / "config/trsllava.yaml"]).captioners.keys() == {
        "llava",
        "attributes",
    }


def test_what_the_guide_shows_is_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    guide = (Path(__file__).parents[1] / "docs/captioning.md").read_text()
    monkeypatch.setenv("MY_TEXTS", str(tmp_path))
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", guide, re.M | re.S)
    base = {"datasets": {"demo": {"source": "demo"}}, "backbones": {"lite": {"kind": "lite"}}}
    assert {run.name for run in plan(base | yaml.safe_load(shown)).config.expanded} == {"lite.by_text", "by_words"}
    (line,) = re.findall(r"^```json\n(.*?)^```$", guide, re.M | re.S)
    (tmp_path / "rich.jsonl").write_text(line)
    options = parse_captioner({"kind": "jsonl", "path": str(tmp_path / "rich.jsonl")})
    assert build(options).caption(["harbour_001.jpg"], [])[0]["keywords"] == ["harbour", "two piers"]


@pytest.mark.parametrize(
    ("captioner", "message"),
    [
        ({"kind": "jsonl", "path": "results/rich/demo/own.jsonl"}, "captioners.own: .* is inside `results`"),
        ({"kind": "vlm", "model": " "}, "captioners.own.model: Input should not be blank"),
        ({"kind": "vlm", "prompts": {"sentence": "\t "}}, "captioners.own.prompts.sentence: "),
    ],
)
def test_a_captioner_that_cannot_be_meant_is_refused(captioner: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment.parse(CONFIG | {"captioners": CONFIG["captioners"] | {"own": captioner}})
