import hashlib
import json
import os
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cmer.cli.leaks import app
from cmer.data.annotations import read_annotations
from cmer.data.frames import HASHES, TABLE, read_frame, write_frame
from cmer.data.leaks import Part, excluded, find_leaks, read_parts, shared_captions, twins
from cmer.data.pairs import Pairs
from cmer.data.sampler import epoch_batches
from cmer.errors import UserError

KINDS = ["similar_images", "twins", "shared_captions"]


@dataclass(frozen=True)
class Picture:
    """An image of a dataset, as prepared."""

    dataset: str
    number: int
    split: str
    hash: str
    captions: list[str]

    @property
    def file(self) -> str:
        return f"{self.number}.jpg"


def write(folder: Path, pictures: list[Picture]) -> Path:
    rows = [(p.number, p.file, "", p.split, 1, 1, content(p)) for p in pictures]
    columns = ["image_id", "file", "label", "split", "width", "height", "sha256"]
    write_frame(folder / "images.csv", pd.DataFrame(rows, columns=columns))
    hashes = [(p.number, content(p), p.hash) for p in pictures]
    write_frame(folder / "hashes.csv", pd.DataFrame(hashes, columns=["image_id", "sha256", "hash"]))
    captions = pd.DataFrame(
        [(p.number, text) for p in pictures for text in p.captions], columns=["image_id", "caption"]
    )
    captions.insert(0, "caption_id", range(len(captions)))
    write_frame(folder / "captions.csv", captions)
    write_frame(folder / "prompted.csv", captions.assign(label="", prompt=captions["caption"]))
    return folder


def content(picture: Picture) -> str:
    return hashlib.sha256(f"{picture.dataset} {picture.number}".encode()).hexdigest()


def draw_hash(rng: np.random.Generator) -> str:
    return np.packbits(np.append(False, rng.random(255) < 0.5)).tobytes().hex()


@pytest.fixture
def datasets(tmp_path: Path) -> dict[str, list[Picture]]:
    """Three sets under one folder, the last without val: few captions, often the same; some pictures come again."""
    rng = np.random.default_rng(0)
    texts = [f"text {i}" for i in range(60)]
    hashes = [draw_hash(rng) for _ in range(30)]
    found = {}
    for name, splits in (("a", ["train", "val", "test"]), ("b", ["train", "val", "test"]), ("c", ["train", "test"])):
        pictures = []
        for number in range(40):
            own = hashes[rng.integers(30)] if rng.random() < 0.5 else draw_hash(rng)
            captions = rng.choice(texts[:8] if rng.random() < 0.4 else texts, 5).tolist()
            pictures.append(Picture(name, number, splits[number % len(splits)], own, captions))
        found[name] = pictures
        write(tmp_path / name, pictures)
        write_frame(tmp_path / f"{name}.validation.csv", pd.DataFrame({"image_id": validation(pictures)}))
    return found


def validation(pictures: list[Picture]) -> list[int]:
    """The own val, or the first five train images."""
    own = [p.number for p in pictures if p.split == "val"]
    return own or [p.number for p in pictures if p.split == "train"][:5]


def common(first: Picture, second: Picture) -> int:
    return len(set(first.captions) & set(second.captions)) if first.dataset != second.dataset else 0


def test_pairs_of_images_are_those_of_naive_loops(datasets: dict[str, list[Picture]], tmp_path: Path) -> None:
    table, summary = find_leaks([tmp_path / name for name in datasets])
    everyone = [p for split in ("test", "val", "train") for ps in datasets.values() for p in ps if p.split == split]
    expected = []
    for a, b in combinations(everyone, 2):
        sides = (a.dataset, a.split, a.file, b.dataset, b.split, b.file)
        if a.hash == b.hash:
            expected.append(("similar_images", *sides, 0, -1))
        if common(a, b) >= 3:
            expected.append(("twins", *sides, -1, common(a, b)))
    found = table.fillna(-1).itertuples(index=False, name=None)
    assert sorted(found) == sorted(expected)
    assert {row[0] for row in expected} == {"similar_images", "twins"}
    counted = summary[summary["kind"] != "shared_captions"]
    assert counted.groupby("kind")["pairs"].sum().to_dict() == table["kind"].value_counts().to_dict()
    row = summary.query("kind == 'twins' and dataset_a == 'a' and split_a == 'test' and dataset_b == 'c'").iloc[0]
    own = {e[3] for e in expected if (e[0], *e[1:3], *e[4:6]) == ("twins", "a", "test", "c", row["split_b"])}
    assert (row["found"], row["of"]) == (len(own), 13)


def test_counts_of_captions_are_those_of_naive_loops(datasets: dict[str, list[Picture]], tmp_path: Path) -> None:
    _, summary = find_leaks([tmp_path / name for name in datasets])
    counted = summary[summary["kind"] == "shared_captions"]
    for row in counted.itertuples():
        a = [p for p in datasets[row.dataset_a] if p.split == row.split_a]
        b = [p for p in datasets[row.dataset_b] if p.split in row.split_b.split("+")]
        shared = [text for p in a for text in p.captions if any(text in q.captions for q in b if q is not p)]
        assert (row.found, row.of) == (len(shared), sum(len(p.captions) for p in a))
    asked = set(zip(counted["dataset_a"] + counted["split_a"], counted["dataset_b"] + counted["split_b"], strict=True))
    assert len(asked) == len(counted)
    assert asked >= {("atest", "atrain+val"), ("atest", "atest"), ("bval", "atrain"), ("ctest", "ctrain")}


@pytest.mark.parametrize("kinds", [[kind] for kind in KINDS] + [KINDS, []])
@pytest.mark.parametrize("name", ["a", "c"])
def test_excluded_are_those_of_naive_loops(
    datasets: dict[str, list[Picture]], tmp_path: Path, name: str, kinds: list[str]
) -> None:
    val = tmp_path / f"{name}.validation.csv"
    found = excluded(name, [tmp_path / other for other in datasets], val, kinds)
    drawn = validation(datasets[name])
    pictures = [replace(p, split="val") if p.number in drawn else p for p in datasets[name]]
    held = [p for ps in ({**datasets, name: pictures}).values() for p in ps if p.split != "train"]
    expected = set()
    for number, (p, text) in enumerate((q, text) for q in pictures for text in q.captions):
        for q in held if p.split == "train" else []:
            holds = {"similar_images": p.hash == q.hash, "twins": common(p, q) >= 3}
            holds["shared_captions"] = text in q.captions
            expected |= {(number, p.number, f"{kind}: {q.dataset} {q.split}") for kind in kinds if holds[kind]}
    assert sorted(found.itertuples(index=False, name=None)) == sorted(expected)
    assert {reason.partition(":")[0] for _, _, reason in expected} == set(kinds)


def test_training_leaves_the_excluded_out_and_nothing_else(datasets: dict[str, list[Picture]], tmp_path: Path) -> None:
    folder, val, out = tmp_path / "c", tmp_path / "c.validation.csv", tmp_path / "excluded.csv"
    whole = Pairs.read(folder, folder / "prompted.csv", val)
    first, *others = whole.train_images.tolist()
    gone = [*range(5 * first, 5 * first + 5), *(5 * image + image % 5 for image in others[::2])]
    lost = pd.DataFrame({"caption_id": gone, "image_id": [caption // 5 for caption in gone], "reason": "twins: a test"})
    write_frame(out, pd.concat([lost, lost[-1:]]))
    part = Pairs.read(folder, folder / "prompted.csv", val, out)

    def seen(pairs: Pairs) -> list[tuple[int, str]]:
        settings = {"epoch": 0, "seed": 0, "batch_size": 4, "epoch_of": "pairs", "prompt_share": 0.0, "views": 1}
        batches = epoch_batches(pairs, **settings)
        return sorted((int(pairs.caption_image[c]), pairs.texts[c]) for batch in batches for c in batch.captions)

    kept = [caption for image in others for caption in range(5 * image, 5 * image + 5) if caption not in gone]
    assert seen(part) == sorted((caption // 5, whole.texts[caption]) for caption in kept)
    assert len(seen(whole)) == 5 * len(whole.train_images)
    assert part.train_images.tolist() == others
    for images in ("val_images", "test_images"):
        one, other = (getattr(pairs, images) for pairs in (whole, part))
        assert one.tolist() == other.tolist()
        texts = [[pairs.texts[c] for c in pairs.captions_of(one)] for pairs in (whole, part)]
        assert texts[0] == texts[1]


def test_files_of_another_dataset_are_named(datasets: dict[str, list[Picture]], tmp_path: Path) -> None:
    folder, out = tmp_path / "a", tmp_path / "excluded.csv"
    test = next(p.number for p in datasets["a"] if p.split == "test")
    for caption in (5 * test, 10_000):
        write_frame(out, pd.DataFrame({"caption_id": [caption], "image_id": [test], "reason": [""]}))
        with pytest.raises(UserError, match=r"excluded\.csv names captions of val, test or another dataset"):
            Pairs.read(folder, folder / "prompted.csv", None, out)
    with pytest.raises(UserError, match="no --folder belongs to d; given are a, b"):
        excluded("d", [folder, tmp_path / "b"], tmp_path / "a.validation.csv", [])
    with pytest.raises(UserError, match="two datasets have the same name"):
        find_leaks([folder, tmp_path / "b/../a"])
    write(tmp_path / "short/a", datasets["a"][:20])
    (tmp_path / "short/a/hashes.csv").write_bytes((folder / "hashes.csv").read_bytes())
    with pytest.raises(UserError, match="describe different datasets; run cmer prepare again"):
        read_parts(tmp_path / "short/a")
    write(tmp_path / "long/a", datasets["a"])  # as many images as in hashes.csv, of another dataset
    other = read_frame(tmp_path / "long/a/hashes.csv", HASHES)
    write_frame(tmp_path / "long/a/hashes.csv", other.assign(sha256=other["sha256"].to_numpy()[::-1]))
    with pytest.raises(UserError, match="describe different datasets; run cmer prepare again"):
        read_parts(tmp_path / "long/a")
    for ids in ([5, 999_999], [test], []):
        write_frame(tmp_path / "val.csv", pd.DataFrame({"image_id": ids}))
        with pytest.raises(UserError, match=r"val\.csv names (test images or images of another dataset|no image)"):
            read_parts(folder, tmp_path / "val.csv")


def test_the_verbs_write_tables_and_print_counts(datasets: dict[str, list[Picture]], tmp_path: Path) -> None:
    folders = [part for name in datasets for part in ("--folder", str(tmp_path / name))]
    out, summary = tmp_path / "leaks.csv", tmp_path / "summary.csv"
    shown = CliRunner().invoke(app, ["leaks", *folders, "--out", str(out), "--summary", str(summary)])
    assert shown.exit_code == 0, shown.output
    expected = find_leaks([tmp_path / name for name in datasets])
    assert read_frame(out, TABLE)["kind"].tolist() == expected[0]["kind"].tolist()
    row = read_frame(summary, TABLE).query("kind == 'shared_captions' and split_b == 'train+val'").iloc[0]
    assert any(
        line.split()[1:] == ["a", "test", "a", "train+val", row["found"], row["of"]]
        for line in shown.output.splitlines()
    )
    spec = json.dumps({"dataset": "c", "exclude": ["twins"]})
    arguments = ["exclude", "--spec", spec, *folders, "--validation", str(tmp_path / "c.validation.csv")]
    told = CliRunner().invoke(app, [*arguments, "--out", str(out)])
    assert told.exit_code == 0, told.output
    found = read_frame(out, TABLE)
    assert f"{len(set(found['caption_id']))} train captions of {len(set(found['image_id']))} images" in told.output
    alone = ["--folder", str(tmp_path / "c"), *arguments[-2:]]
    nothing = CliRunner().invoke(app, [*arguments[:3], *alone, "--out", str(out)])
    assert nothing.exit_code == 0 and "warning: datasets.c.exclude: twins excluded nothing" in nothing.output
    assert "excluded nothing" not in told.output
    wrong = CliRunner().invoke(app, [*arguments[:2], spec.replace("twins", "twin"), *arguments[3:], "--out", str(out)])
    assert isinstance(wrong.exception, UserError) and "'shared_captions' (given: 'twin')" in str(wrong.exception)


FILES = {"rsicd": "dataset_rsicd.json", "rsitmd": "dataset_RSITMD.json", "ucm": "dataset.json"}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Part]:
    """The real captions, with hashes that say nothing."""
    parts = {}
    for name, file in FILES.items():
        entries = read_annotations(Path(os.environ["CMER_DATA_ROOT"]) / name / file)
        captions = [[text for text in entry.captions if any(map(str.isalpha, text))] for entry in entries]
        pictures = [Picture(name, i, e.split, "0" * 64, captions[i]) for i, e in enumerate(entries)]
        folder = write(tmp_path_factory.mktemp("published") / name, pictures)
        parts |= {(name, part.split): part for part in read_parts(folder)}
    return parts


@pytest.mark.skipif("CMER_DATA_ROOT" not in os.environ, reason="CMER_DATA_ROOT is not set")
def test_captions_of_the_published_sets(published: dict[tuple[str, str], Part]) -> None:
    within = {name: int(shared_captions(published[name, "test"], published[name, "test"]).sum()) for name in FILES}
    assert within == {"rsicd": 641, "rsitmd": 6, "ucm": 868}
    seen = {
        name: sum(
            shared_captions(published[name, "test"], part)
            for (own, split), part in published.items()
            if own == name and split != "test"
        )
        > 0
        for name in FILES
    }
    assert {name: int(flags.sum()) for name, flags in seen.items()} == {"rsicd": 636, "rsitmd": 54, "ucm": 642}
    assert len(seen["rsicd"]) == 5465 and len(seen["ucm"]) == 1050
    splits = [(a, b) for a in ("train", "test") for b in ("train", "val", "test")]
    found = {(a, b): twins(published["rsitmd", a], published["rsicd", b]) for a, b in splits}
    assert len(found["test", "train"]) == 20 and len(found["train", "test"]) == 98
    everyone = pd.concat(found.values())
    assert len(everyone) == everyone["image_a"].nunique() == everyone["image_b"].nunique() == 433


def test_an_exclusion_that_leaves_nothing_to_train_on_is_refused(datasets: object, tmp_path: Path) -> None:
    folder, val, out = tmp_path / "c", tmp_path / "c.validation.csv", tmp_path / "excluded.csv"
    whole = Pairs.read(folder, folder / "prompted.csv", val)
    lost = pd.DataFrame({"caption_id": whole.captions_of(whole.train_images), "image_id": 0, "reason": "twins: a test"})
    write_frame(out, lost)
    with pytest.raises(UserError, match="leaves no caption to train on; shorten the dataset's `exclude`"):
        Pairs.read(folder, folder / "prompted.csv", val, out)


def test_damaged_hashes_are_named(datasets: object, tmp_path: Path) -> None:
    hashes = read_frame(tmp_path / "a/hashes.csv", HASHES)
    write_frame(tmp_path / "a/hashes.csv", hashes.assign(hash="zz"))
    with pytest.raises(UserError, match=r"hashes\.csv, row 1: hash is 'zz'; run `cmer prepare` again"):
        find_leaks([tmp_path / "a"])
