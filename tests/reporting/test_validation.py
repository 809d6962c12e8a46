import pandas as pd
import pytest
import torch

from cmer.errors import UserError
from cmer.reporting.validation import validation_table
from cmer.training.checkpoint import save


def checkpoint(folder, run, seed, lr, val_mr):
    spec = {"dataset": "demo", "run": run, "seed": seed, "method": "clip_lora", "training": {"lr": lr}}
    spec |= {"backbone": {"kind": "tiny"}, "options": {}}
    made = {
        "spec": spec,
        "features": "",
        "trainable_parameters": 2,
        "train_images": 200,
        "images_seen": 1000,
        "epochs": 5,
        "best_epoch": 4,
        "val_mr": val_mr,
    }
    save(folder / f"{run}.{seed}.safetensors", {"weight": torch.zeros(2)}, made)
    return folder / f"{run}.{seed}.safetensors"


def test_validation_table_says_what_each_training_reached(tmp_path) -> None:
    files = [checkpoint(tmp_path, "b", 2, 1e-3, 20.5), checkpoint(tmp_path, "b", 1, 1e-3, 21.0)]
    files.append(checkpoint(tmp_path, "a", 1, 3e-4, 19.25))
    table = validation_table(files)
    assert table[["run", "seed", "lr", "val_mr"]].to_dict("records") == [
        {"run": "a", "seed": 1, "lr": 3e-4, "val_mr": 19.25},
        {"run": "b", "seed": 1, "lr": 1e-3, "val_mr": 21.0},
        {"run": "b", "seed": 2, "lr": 1e-3, "val_mr": 20.5},
    ]
    pd.testing.assert_frame_equal(table, validation_table(reversed(files)))


def test_a_missing_checkpoint_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"gone\.safetensors"):
        validation_table([tmp_path / "gone.safetensors"])


@pytest.mark.parametrize("val_mr", ["99", float("inf"), 101.0, -1.0])
def test_a_recall_that_cannot_be_is_refused(tmp_path, val_mr) -> None:
    file = checkpoint(tmp_path, "a", 1, 3e-4, val_mr)
    with pytest.raises(UserError, match=rf"{file}|{file.name} is damaged"):
        validation_table([file])
