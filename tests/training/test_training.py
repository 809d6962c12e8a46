import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from cmer.cli.main import app
from cmer.config.base import validate
from cmer.config.runs import RunSpec
from cmer.data.frames import PROMPTS, read_frame, write_frame
from cmer.features.store import FeatureSpec
from cmer.provenance import stored_record
from cmer.registry import METHOD_OPTIONS
from cmer.training.assembly import assemble
from cmer.training.loop import Trainer, schedule
from cmer.training.state import unpacked

BACKBONE = {"kind": "tiny", "printed": "tiny", "features": {"views": 4}}
TRAINING = {"epochs": 3, "batch_size": 6, "lr": 0.002, "threads": 1}


def spec(prepared, method="cmer", options=None, **training):
    given = {"text": "side_branch", "queue_batches": 2, "hidden": 24, "heads": 3} if method == "cmer" else {}
    given |= options or {}
    settings = TRAINING | training
    online = settings.get("inputs") == "online"
    own = METHOD_OPTIONS.get(method).own_towers
    backbone = None if own else BACKBONE
    data = {"run": f"tiny.{method}", "dataset": "squares", "seed": 0, "backbone": backbone, "method": method}
    data |= {"options": given, "training": settings, "source": prepared.options if online else None}
    return validate(RunSpec, data, "spec")


@pytest.fixture
def workspace(prepared, tmp_path, monkeypatch):
    """An empty working folder with the features extracted."""
    monkeypatch.chdir(tmp_path)
    extract_features(prepared)


def extract_features(prepared):
    features = FeatureSpec(dataset=prepared.options, backbone=BACKBONE).model_dump_json()
    arguments = ["--folder", prepared.folder, "--captions", prepared.captions, "--queries", prepared.queries]
    call("features", "--spec", features, *arguments, "--out", "features.json")


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def train_arguments(prepared, run, out="checkpoint.safetensors"):
    files = ["--folder", prepared.folder, "--captions", prepared.captions, "--validation", prepared.validation]
    features = ["--features", "features.json"] if run.source is None else []
    written = ["--out", out, "--curve", Path(out).with_suffix(".curve.jsonl")]
    return [str(a) for a in ["train", "--spec", run.model_dump_json(), *files, *features, *written]]


def losses_of_five_steps(prepared, run):
    ready = assemble(run, prepared.pairs, prepared.folder, None if run.source else Path("features.json"))
    trainer = Trainer(ready.method, ready.inputs, prepared.pairs, run, Path("never/state.pt"))
    return [trainer.step(batch) for batch in trainer.batches(0)[:5]]


@pytest.mark.parametrize("options", [{"text": "lora"}, {"text": "side_branch"}])
def test_stored_features_train_as_pixels_do(prepared, workspace, options) -> None:
    stored = losses_of_five_steps(prepared, spec(prepared, options=options))
    online = losses_of_five_steps(prepared, spec(prepared, options=options, inputs="online"))
    assert np.allclose(stored, online, atol=1e-4)
    assert len(set(stored)) == 5


def test_a_stored_run_opens_no_image(prepared, workspace, monkeypatch) -> None:
    monkeypatch.setattr("cmer.data.images.FolderImages.read", lambda *_: pytest.fail("opened an image"))
    call(*train_arguments(prepared, spec(prepared)))
    assert Path("checkpoint.safetensors").is_file()


def test_a_run_trains_on_the_subsample_that_it_asks_for(prepared, workspace) -> None:
    call(*train_arguments(prepared, spec(prepared, train_images=10, epochs=2, epoch_of="images")))
    record = stored_record("checkpoint.safetensors")
    assert (record["train_images"], record["images_seen"]) == (10, 20)
    assert len(prepared.pairs.train_images) > 10


def test_captions_of_other_images_teach_nothing(crowd, tmp_path, monkeypatch) -> None:
    """Chance is the mR of a blind ranker: k of 120 images, or of 600 captions that hold five right ones."""
    monkeypatch.chdir(tmp_path)
    extract_features(crowd)
    chance = np.mean([100 * k / 120 for k in (1, 5, 10)] + [100 * (1 - (1 - 5 / 600) ** k) for k in (1, 5, 10)])
    assert trained_mr(crowd) > chance + 5
    captions = read_frame(crowd.captions, PROMPTS)
    train = ~captions["image_id"].isin(crowd.pairs.test_images)
    shuffled, found = replace(crowd, captions=tmp_path / "shuffled.csv"), []
    for seed in range(3):  # one shuffle deviates from chance by about 1
        texts = captions.loc[train, ["caption", "prompt"]].sample(frac=1, random_state=seed).to_numpy()
        captions.loc[train, ["caption", "prompt"]] = texts
        write_frame(shuffled.captions, captions)
        found.append(trained_mr(shuffled))
    assert abs(np.mean(found) - chance) < 2, found


def trained_mr(prepared):
    call(*train_arguments(prepared, spec(prepared, epoch_of="images", batch_size=30, epochs=8)))
    embed(prepared, "features.json")
    return evaluate(prepared)["protocols"]["none"]["mr"]


def embed(prepared, features=None):
    files = ["--folder", prepared.folder, "--captions", prepared.captions, "--queries", prepared.queries]
    files += ["--validation", prepared.validation]
    stored = ["--features", features] if features else []
    files += ["--template", "{label}. {caption}"]
    call("embed", "--checkpoint", "checkpoint.safetensors", *files, *stored, "--out", "embeddings.safetensors")


def evaluate(prepared):
    files = ["--folder", prepared.folder, "--queries", prepared.queries, "--out", "metrics.json", "--ranks", "r.csv"]
    files += ["--shown", "queries.json", "--mr", "mr.json"]
    call("evaluate", "--embeddings", "embeddings.safetensors", *files)
    return json.loads(Path("metrics.json").read_text())


@pytest.mark.parametrize("text", ["lora", "side_branch"])
def test_a_killed_training_ends_with_the_same_bytes(prepared, workspace, monkeypatch, text) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda self, _: float(self.state.epoch))  # the last weights are kept
    steps = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, batch: steps.append(batch) or step(self, batch))
    run = spec(prepared, options={"text": text, "focus_dropout": 0.2}, epochs=20, ema=0.9)
    call(*train_arguments(prepared, run, "whole.safetensors"))
    total = len(steps)
    code = (
        "import time, cmer.training.loop as loop; from cmer.cli.main import main\n"
        "loop.SAVE_EVERY = 0.0; step = loop.Trainer.step\n"
        "loop.Trainer.validate = lambda self, _: float(self.state.epoch)\n"
        "loop.Trainer.step = lambda self, batch: (time.sleep(0.02), step(self, batch))[1]\n"
        "main()"
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code, *train_arguments(prepared, run, "killed.safetensors")])
        kill_in_mid_epoch(process)
    assert not Path("killed.safetensors").exists()
    (file,) = Path("work/train").glob("*/state.pt")
    saved = unpacked(file.read_bytes(), file)
    steps.clear()
    call(*train_arguments(prepared, run, "killed.safetensors"))
    assert len(steps) == total - saved["epoch"] * total // 20 - saved["step"]
    assert Path("killed.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()
    assert Path("killed.curve.jsonl").read_bytes() == Path("whole.curve.jsonl").read_bytes()


def kill_in_mid_epoch(process) -> None:
    """SIGKILL once the state has moved on by a few steps since the process started."""
    first = None
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for file in Path("work/train").glob("*/state.pt"):
            state = unpacked(file.read_bytes(), file)
            now = state["epoch"] * 100 + state["step"]
            first = now if first is None else first
            if now >= first + 3 and state["step"] > 0:
                os.kill(process.pid, signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL
                return
        time.sleep(0.01)
    process.kill()
    pytest.fail("the training did not get to its third step")


def test_the_frozen_image_tower_keeps_nothing_for_a_backward_pass(prepared, workspace) -> None:
    """Only the blocks that feed the side branch may be kept: nothing as wide as the tower's MLP (4 x 64)."""
    run = spec(prepared, inputs="online")
    ready = assemble(run, prepared.pairs, prepared.folder, None)
    trainer = Trainer(ready.method, ready.inputs, prepared.pairs, run, Path("never/state.pt"))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda x: x):
        trainer.step(trainer.batches(0)[0])
    assert (6 * 17, 64) in kept  # a block's output, for W_down
    assert not [shape for shape in kept if len(shape) > 1 and shape[-1] == 256]


def test_random_crops_change_what_training_sees(prepared, workspace) -> None:
    plain = losses_of_five_steps(prepared, spec(prepared, inputs="online"))
    cropped = losses_of_five_steps(prepared, spec(prepared, inputs="online", augmentation="crop_flip"))
    assert np.isfinite(cropped).all() and not np.allclose(plain, cropped, atol=1e-4)


def test_zero_shot_needs_no_training(prepared, workspace) -> None:
    call(*train_arguments(prepared, spec(prepared, "zero_shot")))
    embed(prepared, "features.json")
    metrics = evaluate(prepared)
    assert metrics["record"]["trainable_parameters"] == 0
    assert set(metrics["protocols"]) == {"none", "predicted", "oracle", "shuffled"}


def test_identical_captions_have_identical_embeddings(prepared, workspace) -> None:
    call(*train_arguments(prepared, spec(prepared, epochs=1)))
    embed(prepared, "features.json")
    tensors = load_file("embeddings.safetensors")
    texts = pd.read_csv(prepared.queries)["none"]
    rows = pd.Series(tensors["index/none"].numpy()).groupby(texts).nunique()
    assert texts.duplicated().any() and (rows == 1).all()
    assert len(tensors["texts/none"]) == texts.nunique()


def test_schedule_rises_then_falls_to_zero() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert schedule(55, 100, 0.1) == pytest.approx(0.5) and schedule(100, 100, 0.1) == pytest.approx(0)


def test_a_loss_that_is_not_finite_stops_with_a_sentence(prepared, workspace, monkeypatch) -> None:
    monkeypatch.setattr("torch.nn.functional.cross_entropy", lambda logits, target: logits.sum() * torch.inf)
    result = CliRunner().invoke(app, train_arguments(prepared, spec(prepared, lr=10.0)))
    assert "lower training.lr" in str(result.exception)
