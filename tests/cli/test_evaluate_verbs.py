import json
import re

import numpy as np
import pandas as pd
import pytest
from artifacts import images_table, write_embeddings
from typer.testing import CliRunner

from cmer.cli.evaluate import app
from cmer.data.frames import RANKS, TABLE, read_frame, write_frame
from cmer.errors import UserError

PROTOCOLS = ("none", "predicted", "oracle", "shuffled")
PROBE = {"name": "toy", "dataset": "toy", "dataset_title": "toy", "backbone_printed": "tiny", "method": "linear_probe"}


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def annotations(path, names):
    images = [{"filename": name, "split": "test", "sentences": [{"raw": "a pond"}]} for name in names]
    images.append({"filename": "pond_0.jpg", "split": "train", "sentences": [{"raw": "a pond"}]})
    path.write_text(json.dumps({"images": images}))
    return path


def test_from_embeddings_to_a_printed_table(tmp_path):
    write_frame(tmp_path / "images.csv", images_table(2, split="test", label=["pond", ""]))
    texts = {protocol: ["a pond", "null"] for protocol in PROTOCOLS}
    write_frame(tmp_path / "queries.csv", pd.DataFrame({"caption_id": [0, 1], "image_id": [0, 1], **texts}))
    record = {
        "spec": {"run": "toy", "dataset": "toy", "seed": 1, "method": "linear_probe", "options": {}},
        "trainable_parameters": 0,
        "train_images": 27,
        "images_seen": 0,
        "epochs": 0,
    }
    tensors = {f"scores/{protocol}": np.eye(2, dtype=np.float32) for protocol in PROTOCOLS}
    tensors |= {f"index/{protocol}": np.arange(2) for protocol in PROTOCOLS}
    write_embeddings(tmp_path / "e.safetensors", tensors, record)
    call(
        *(
            "evaluate",
            "--embeddings",
            tmp_path / "e.safetensors",
            "--folder",
            tmp_path,
            "--queries",
            tmp_path / "queries.csv",
        ),
        *(
            "--out",
            tmp_path / "m.json",
            "--ranks",
            tmp_path / "ranks.csv",
            "--shown",
            tmp_path / "queries.json",
            "--mr",
            tmp_path / "mr.json",
        ),
        *("--record", tmp_path / "record.json"),
    )
    assert json.loads((tmp_path / "m.json").read_text())["protocols"]["none"]["mr"] == 100
    assert json.loads((tmp_path / "mr.json").read_text()) == {"mr": dict.fromkeys(PROTOCOLS, 100)}
    assert len(read_frame(tmp_path / "ranks.csv", RANKS)) == 4 * (2 + 2)
    assert "seconds" in json.loads((tmp_path / "record.json").read_text())

    spec = json.dumps({"kind": "table1", "runs": [PROBE | {"options": {}}], "protocols": list(PROTOCOLS), "seeds": [1]})
    output = call("table", "--spec", spec, "--metrics", tmp_path / "m.json", "--out", tmp_path / "t.csv", "--show")
    table = read_frame(tmp_path / "t.csv", TABLE)
    measured = table[table["source"] == "measured"]
    assert measured["label_protocol"].tolist() == list(PROTOCOLS)
    assert set(measured["epochs"]) == set(measured["pairs_seen"]) == {"0"}
    assert "Linear probe" in output
    assert call("show", tmp_path / "t.csv").splitlines()[1:] == output.splitlines()[1:]  # all but the titles
    assert "SWAN" not in output and "SWAN" in call("show", tmp_path / "t.csv", "--printed")


def test_controls_by_prefix_and_by_lists(tmp_path):
    names = ["pond_1.jpg", "pond_2.jpg", "1.jpg", "2.jpg"]
    file = annotations(tmp_path / "dataset.json", names)
    output = call("controls", "--dataset-json", file)
    assert "4 test images; classes: 1; without a label: 2" in output
    assert re.search(r"text to image\D+50\.00\D+100\.00\D+100\.00", output)

    lists = tmp_path / "txtclasses_toy"
    lists.mkdir()
    for name in names:
        (lists / f"class{name[:-4]}.txt").write_text(name)
    assert re.search(r"text to image\D+100\.00", call("controls", "--dataset-json", file))
    with pytest.raises(UserError, match="is not a folder"):
        call("controls", "--dataset-json", file, "--lists", tmp_path / "missing")
