"""An archive of a trained run's test images answers as the run's embeddings do."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "inference"))
import inference_cases as cases

from cmer.cli.archive import app


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return result.stdout


def test_the_best_ten_of_five_captions_are_those_of_the_runs_embeddings(prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    backbone = {"kind": "tiny", "features": {"views": 4}}
    cases.train(prepared, cases.run_spec(prepared, "linear_probe", {}, backbone))
    images, texts = (tensor.numpy() for tensor in cases.expected(prepared))
    names = [file.name for file in cases.test_files(prepared)]
    labels = pd.DataFrame({"file": names, "label": [name.split("_")[0] for name in names]})
    labels.to_csv("labels.csv", index=False)
    for file in cases.test_files(prepared):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / file.name).write_bytes(file.read_bytes())
    said = call("index", "images", "--run", cases.CHECKPOINT, "--store", "a.lance", "--labels", "labels.csv")
    assert said == f"a.lance: {len(names)} embedded, 0 removed, 0 unchanged\n"
    captions = pd.read_csv(prepared.queries)["none"].tolist()
    for row in range(0, 15, 3):
        found = json.loads(call("search", "a.lance", captions[row], "--top", 10, "--json"))
        true = np.argsort(-(images @ texts[row]), kind="stable")[:10]
        scores = [hit["score"] for hit in found["hits"]]
        np.testing.assert_allclose(scores, (images @ texts[row])[true], atol=1e-4)
        assert [hit["file"] for hit in found["hits"]] == [names[n] for n in true]
        assert found["model"] == "any.linear_probe"
    only = json.loads(call("search", "a.lance", captions[0], "--label", "pond", "--json", "--html", "found.html"))
    assert {hit["label"] for hit in only["hits"]} == {"pond"}
    assert Path("found.html").read_text().count("data:image/webp") == len(only["hits"]) == 3
    assert call("export-archive", "a.lance", "--out", "rows.parquet") == f"rows.parquet: {len(names)} rows\n"
    assert len(pd.read_parquet("rows.parquet")) == len(names)
    cases.CHECKPOINT.rename("moved.safetensors")
    with pytest.raises(Exception, match="say with --run where the archive's model is now"):
        call("search", "a.lance", "pond")
    assert "pond_3.png" in call("search", "a.lance", captions[0], "--run", "moved.safetensors")
