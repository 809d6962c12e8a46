"""Runs that the workflow's own functions train and embed, for comparison with a model loaded from the checkpoint."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from cmer.config.base import validate
from cmer.config.runs import RunSpec
from cmer.features.extract import extract_dataset
from cmer.features.store import FeatureSpec
from cmer.registry import METHOD_OPTIONS
from cmer.training.assembly import FEATURES, RunFiles, built, towers_of
from cmer.training.checkpoint import save
from cmer.training.embedding import embed_run
from cmer.training.run import train_run

CHECKPOINT = Path("checkpoint.safetensors")


def run_spec(prepared, method, options=None, backbone=None, **training) -> RunSpec:
    """A run of one short epoch on the squares."""
    training = {"epochs": 1, "epoch_of": "images", "batch_size": 8, "threads": 1, "inputs": "stored"} | training
    own = METHOD_OPTIONS.get(method).own_towers
    data = {"run": f"any.{method}", "dataset": "squares", "seed": 0, "backbone": None if own else backbone}
    data |= {"method": method, "options": options or {}, "training": training}
    return validate(RunSpec, data | {"source": prepared.options if training["inputs"] == "online" else None}, "spec")


def train(prepared, spec: RunSpec) -> RunFiles:
    """Train the run and embed the test split as `cmer features`, `cmer train` and `cmer embed` do, in this folder.

    Returns its files.
    """
    torch.set_num_threads(1)
    features = None
    if spec.training.inputs == "stored":
        features = Path("features.json")
        options = FeatureSpec(dataset=prepared.options, backbone=spec.backbone)
        extract_dataset(options, prepared.folder, prepared.captions, prepared.queries, FEATURES).write(features)
    files = RunFiles(prepared.folder, prepared.captions, prepared.validation, None, features)
    train_run(spec, files, CHECKPOINT, Path("curve.jsonl"))
    embed_run(CHECKPOINT, files, prepared.queries, "{label}. {caption}", Path("embeddings.safetensors"))
    return files


def draw(spec: RunSpec) -> None:
    """Write a checkpoint of the run with random weights near the initial ones, without training or data."""
    method = built(spec, towers_of(spec), ())
    generator = torch.Generator().manual_seed(1)
    noise = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in method.trained().items()}
    write(spec, {name: tensor.detach() + 0.05 * noise[name].abs() for name, tensor in method.trained().items()})


def write(spec: RunSpec, tensors: dict[str, torch.Tensor]) -> None:
    """Write a checkpoint with these tensors."""
    record = {"spec": spec.model_dump(), "trainable_parameters": 0, "train_images": 1, "images_seen": 1, "epochs": 1}
    save(CHECKPOINT, tensors, record | {"features": "", "best_epoch": 1, "val_mr": 1.0})


def expected(prepared) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of the test images, and of the plain test captions, from `embeddings.safetensors`."""
    tensors = load_file("embeddings.safetensors")
    return tensors["images"], tensors["texts/none"][tensors["index/none"]]


def test_files(prepared) -> list[Path]:
    """The files of the test images."""
    root = Path(prepared.options.root) / "images"
    return [root / prepared.pairs.files[image] for image in prepared.pairs.test_images]
