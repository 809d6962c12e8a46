"""Local weight files in a config: inputs of the steps that read them."""

from pathlib import Path
from typing import Any

import pytest
from config_cases import MINIMAL

from cmer.config.base import ConfigError
from cmer.config.experiment import parse
from cmer.errors import UserError
from cmer.plan import Plan

CLIP = {"kind": "open_clip", "model": "ViT-B-32", "weights": "clip.pt", "quick_gelu": False}
METHODS = [
    ("amfmn", {"image_weights": "cnn.pt"}, ["cnn.pt"]),
    ("amfmn", {"image_weights": "imagenet"}, []),
    ("mcrn", {"image_model": "tf_efficientnet_lite0", "image_weights": "lite"}, []),
    ("hvsa", {"image_weights": None}, []),
    ("pir", {"image_weights": "swin.pt", "scene_weights": "$MODELS/r.pt"}, ["swin.pt", "/models/r.pt"]),
    ("pir", {"image_weights": "one.pt", "scene_weights": "one.pt"}, ["one.pt"]),
    ("ieft", {}, []),
    ("ieft", {"weights": "./vilt"}, ["vilt"]),
    ("ieft", {"weights": "folder"}, ["folder/config.json", "folder/model.safetensors"]),
    ("linear_probe", {}, []),
]


def plan(method: str, options: dict[str, Any], **sections: Any) -> Plan:
    return Plan(parse(MINIMAL | {"runs": {"own": {"method": method, "options": options}}, "tables": {}} | sections))


@pytest.mark.parametrize(("method", "options", "files"), METHODS)
def test_a_runs_own_weight_files_are_inputs(tmp_path, monkeypatch, method, options, files) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELS", "/models")
    for name in ("model.safetensors", "config.json", ".gitattributes"):
        Path("folder").mkdir(exist_ok=True)
        (Path("folder") / name).touch()
    found = plan(method, options)
    assert found.weights_of_run(found.config.expanded[0].name) == files


def test_a_backbones_weight_file_is_an_input_of_its_features_and_runs() -> None:
    found = plan("clip_lora", {}, backbones={"clip": CLIP}, run_defaults={"datasets": ["demo"], "backbones": ["clip"]})
    assert found.weights_of_backbone("clip") == found.weights_of_run("clip.own") == ["clip.pt"]


@pytest.mark.parametrize(("method", "key"), [("amfmn", "image_weights"), ("pir", "scene_weights"), ("ieft", "weights")])
def test_weights_among_the_results_are_refused(method, key) -> None:
    with pytest.raises(ConfigError, match=r"runs\.own\.options: \./results/cnn is inside `results`"):
        plan(method, {key: "./results/cnn"})


def test_an_unset_variable_is_named(monkeypatch) -> None:
    monkeypatch.delenv("MODELS", raising=False)
    with pytest.raises(UserError, match="environment variable MODELS is not set"):
        plan("pir", {"scene_weights": "$MODELS/r.pt"}).weights_of_run("own")


@pytest.mark.parametrize("model", ["local-dir:/tmp/model", "hf-hub:someone/model", "../resnet18", ""])
def test_a_model_from_elsewhere_than_timm_is_refused(model) -> None:
    for method, key in (("amfmn", "image_model"), ("swan", "image_model"), ("pir", "scene_model")):
        with pytest.raises(ConfigError, match=rf"runs\.own\.options\.{key}: String should match pattern"):
            plan(method, {key: model})
