"""Copies on a hub: a loopback server with the paths and headers of the Hugging Face hub."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fetch_cases import (
    AS_PUBLISHED,
    IMAGES,
    Answer,
    Files,
    Loopback,
    annotations,
    assert_whole,
    known,
    layout,
    make_parquet,
    make_zip,
    tar_of,
)

from cmer.config.datasets import PublishedDataset
from cmer.data.fetch import fetch_dataset
from cmer.data.fetch.archives import SourceError
from cmer.data.fetch.hub import archive_parquet
from cmer.errors import UserError

COMMIT = "4920188e6eba4e711ef9848cfd7cb77e874ee33f"
PARQUET = [f"data/{split}-00000-of-00001.parquet" for split in ("train", "valid", "test")]


class Hub(Loopback):
    """Answers as the hub does: an ETag that is the SHA-256 of a large file, and the commit of the revision."""

    def publish(self, repo: str, revision: str, files: Files) -> None:
        self.files |= {f"/{repo}/resolve/{revision}/{name}": data for name, data in files.items()}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        data = self.files.get(handler.path)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data or b"").hexdigest()}"'}
        if data is None:
            self.script.insert(0, Answer(status=404, headers={"X-Error-Code": "EntryNotFound"}, body=b""))
        else:
            usual = self.script.pop(0) if self.script else Answer()
            self.script.insert(0, replace(usual, headers=headers))
        super().answer(handler)

    @property
    def fetched(self) -> int:
        """How many files were asked for."""
        return sum(request.command == "GET" and request.path in self.files for request in self.requests)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that is the one huggingface_hub asks, and an empty cache."""
    loopback = Hub()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", loopback.url)
    template = loopback.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield loopback
    loopback.stop()


@pytest.fixture
def rsicd(hub: Hub, tmp_path: Path) -> Hub:
    """With RSICD as arampacha/rsicd has it."""
    files = {name: path.read_bytes() for name, path in zip(PARQUET, make_parquet(tmp_path / "made"), strict=True)}
    hub.publish("datasets/arampacha/rsicd", "main", files)
    return hub


def on_hub(files: list[str]) -> PublishedDataset:
    return known({"kind": "hub", "repo": "arampacha/rsicd", "revision": "main", "files": files})


def reason(options: PublishedDataset) -> str:
    with pytest.raises(UserError) as error:
        fetch_dataset(options, "out")
    assert not Path("out").exists()
    return str(error.value)


def test_parquet_on_the_hub_is_fetched_once(rsicd: Hub) -> None:
    fetched = fetch_dataset(on_hub(PARQUET), "out")
    assert_whole(Path("out"))
    assert fetched.source == "arampacha/rsicd on the Hugging Face hub" and "no class lists" in fetched.warnings[0]
    fetch_dataset(on_hub(PARQUET), "again")
    assert rsicd.fetched == len(PARQUET)


def test_an_archive_of_two_datasets_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    """As RS5M's authors pack their test data, in a model's repository."""
    both = layout("rs5m_test_data/rsicd/", lists=False) | {
        "rs5m_test_data/rsitmd/dataset_RSITMD.json": annotations(),
    }
    both |= {f"rs5m_test_data/rsitmd/images/{name}": b"another" for name in IMAGES}
    packed = make_zip(tmp_path / "packed.zip", both).read_bytes()
    hub.publish("Zilun/GeoRSCLIP", COMMIT, {"data/rs5m_test_data.zip": packed})
    source = {
        "kind": "hub", "repo": "Zilun/GeoRSCLIP", "repo_type": "model", "revision": COMMIT,
        "files": ["data/rs5m_test_data.zip"],
    }  # fmt: skip
    fetch_dataset(known(source), "rsicd")
    assert_whole(Path("rsicd"))
    fetch_dataset(known(source, name="rsitmd"), "rsitmd")
    assert Path("rsitmd/images.tar").read_bytes() == tar_of(dict.fromkeys(IMAGES, b"another"))
    assert hub.fetched == 1


def test_a_wrong_file_of_the_right_length_is_deleted(rsicd: Hub) -> None:
    path = f"/datasets/arampacha/rsicd/resolve/main/{PARQUET[0]}"
    right = rsicd.files[path]
    rsicd.script = [Answer(), Answer(body=right[::-1])]
    bad, good = (hashlib.sha256(data).hexdigest() for data in (right[::-1], right))
    assert f"the SHA-256 of {PARQUET[0]} is {bad}, not {good} as stated by the hub" in reason(on_hub(PARQUET))
    fetch_dataset(on_hub(PARQUET), "out")
    assert_whole(Path("out"))


def test_a_file_that_the_hub_lacks_is_named(rsicd: Hub) -> None:
    told = reason(on_hub(["data/train-00000-of-00002.parquet"]))
    assert "arampacha/rsicd on the Hugging Face hub: data/train-00000-of-00002.parquet: 404" in told


def test_several_archives_are_refused_before_anything_is_fetched(hub: Hub) -> None:
    assert "`files` must be parquet files, or one archive" in reason(on_hub(["a.zip", "b.zip"]))
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("rows-0.parquet", {}, "rows-0.parquet is not named after its split, one of train"),
        ("train.parquet", None, "train.parquet cannot be read"),
        ("test-0.parquet", {"image": None}, "a row of test-0.parquet is not valid:.*- image: "),
        ("test-0.parquet", {"captions": "a pond"}, "- captions: "),
        ("val.parquet", {"image": b"bytes" * 1000}, "- image: "),
    ],
)
def test_parquet_of_another_layout_is_named(
    name: str, row: dict[str, object] | None, message: str, tmp_path: Path
) -> None:
    usual = {"filename": "a.jpg", "captions": ["a"], "image": {"bytes": b"image", "path": ""}}
    path = tmp_path / name
    if row is None:
        path.write_bytes(b"PAR1")
    else:
        pq.write_table(pa.Table.from_pylist([usual | row]), path)
    with pytest.raises(SourceError, match=f"(?s){message}") as error:
        archive_parquet([path], "dataset_rsicd.json", tmp_path / "out.tar")
    assert len(str(error.value)) < 500


def test_parquet_without_a_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([{"filename": "a.jpg", "caption": "a"}]), path)
    with pytest.raises(SourceError, match=r"train\.parquet"):
        archive_parquet([path], "dataset_rsicd.json", tmp_path / "out.tar")


def test_the_endpoint_of_the_environment_is_asked(rsicd: Hub, tmp_path: Path) -> None:
    spec = {"source": "rsicd", "sources": [on_hub(PARQUET).model_dump()["sources"][0]]}
    environment = os.environ | {"HF_ENDPOINT": rsicd.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    code = f"{AS_PUBLISHED}from cmer.cli.main import main; main()"
    command = [sys.executable, "-c", code, "fetch", "--spec", json.dumps(spec), "--folder", "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_whole(Path("out"))
    assert list((tmp_path / "home").rglob("*.parquet"))
