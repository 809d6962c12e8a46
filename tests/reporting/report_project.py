"""Results of one run with two seeds on the squares, as the workflow lays them out, for tests of the report."""

from pathlib import Path

import numpy as np
from artifacts import write_embeddings

from cmer.data.frames import write_frame
from cmer.io import sha256, write_sealed
from cmer.provenance import recorded
from cmer.reporting.base import Files, TableSpec, build_table
from cmer.reporting.report.spec import ReportSpec
from cmer.retrieval.evaluate import evaluate

RUN = {
    "name": "lite.probe", "dataset": "squares", "dataset_title": "squares", "backbone_printed": "lite",
    "method": "linear_probe", "options": {"soft_multi_positive": True},
}  # fmt: skip


def write_results(prepared, root: Path) -> None:
    """Write the results; the records of their commands are in logs/ beside them."""
    for source, target in ((prepared.folder / "images.csv", "data/squares"), (prepared.queries, "captions")):
        (root / target).mkdir(parents=True)
        name = "squares.queries.csv" if target == "captions" else "images.csv"
        (root / target / name).write_bytes(source.read_bytes())
    files = []
    for seed in (1, 2):
        place = f"squares/lite.probe/seed{seed}"
        embeddings, metrics = root / f"embeddings/{place}.safetensors", root / f"metrics/{place}.json"
        with recorded(root.parent / f"logs/evaluate/{seed}.record.json"):
            _evaluate(prepared, embeddings, metrics, seed)
        files.append(metrics)
        curve = root / f"curves/{place}.jsonl"
        curve.parent.mkdir(parents=True, exist_ok=True)
        curve.write_text('{"epoch": 1, "loss": {"batch": 2.0}}\n{"epoch": 2, "loss": {"batch": 1.0}, "val_mr": 30.5}\n')
    table = TableSpec.model_validate(
        {"kind": "table1", "runs": [RUN], "protocols": ["none", "oracle"], "seeds": [1, 2]}
    )
    write_frame(root / "table1.csv", build_table(table, Files(metrics=files)))


def _evaluate(prepared, embeddings: Path, metrics: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    images, texts = draw.normal(size=(9, 8)), draw.normal(size=(45, 8))
    tensors = {"images": (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)}
    for protocol in ("none", "oracle"):
        tensors |= {
            f"texts/{protocol}": (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32),
            f"index/{protocol}": np.arange(45),
        }
    spec = {"run": RUN["name"], "dataset": "squares", "seed": seed, "method": RUN["method"], "options": RUN["options"]}
    counts = {"trainable_parameters": 1234, "train_images": 20, "epochs": 2, "images_seen": 40}
    embeddings.parent.mkdir(parents=True, exist_ok=True)
    beside = [(prepared.folder / "images.csv", "images.csv"), (prepared.queries, "queries.csv")]
    for source, name in beside:
        (embeddings.parent / name).write_bytes(source.read_bytes())
    write_embeddings(embeddings, tensors, {"spec": spec} | counts)
    found = evaluate(embeddings, prepared.folder, prepared.queries)
    file = metrics.with_suffix(".ranks.csv")
    write_frame(file, found.ranks)
    for path, content in ((metrics, found.metrics), (metrics.with_suffix(".queries.json"), found.queries)):
        write_sealed(path, content | {"ranks": sha256(file)}, "cmer evaluate")


def spec_of(prepared) -> ReportSpec:
    training = {"lr": 0.003, "inputs": "stored"}
    return ReportSpec.model_validate({
        "folder": "results", "tables": [{"name": "table1", "kind": "table1"}], "figures": [], "seeds": [1, 2],
        "runs": [RUN | {"training": training}], "datasets": {"squares": prepared.options.model_dump()},
    })  # fmt: skip
