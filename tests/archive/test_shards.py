"""An archive that is embedded in shards has the rows of one that is embedded at once."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archive_cases import Colours, square, squares
from config_cases import MINIMAL
from planned_steps import plan
from typer.testing import CliRunner

from cmer.archive import index as indexing
from cmer.archive.index import index
from cmer.archive.listing import read_listing, write_listing
from cmer.archive.search import Searcher
from cmer.archive.shards import STATE, Built, build, embed_shard
from cmer.archive.store import Archive
from cmer.cli.shards import app
from cmer.config.archives import ShardSpec, Tiling
from cmer.errors import UserError
from cmer.io import read_sealed

SHARDS = 3
TILING = Tiling(tile=32, overlap=8)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(folder: Path) -> Path:
    """Squares, a scene of several tiles, and a file that cannot be read."""
    square(folder / "blue/scene.png", (5, 90, 200), side=100)
    (folder / "red/broken.png").write_bytes(b"")
    return folder


def embed(folder: Path, model: Colours, shard: int, shards: int = SHARDS, tiling: Tiling = TILING) -> str:
    spec = ShardSpec(folder=str(folder), shards=shards, tiling=tiling)
    found = read_listing(Path("files.parquet"), shard)
    return str(embed_shard(found, shard, spec, model, "colours", Path(f"shards/{shard}.parquet")))


def joined(folder: Path, store: Path | str, model: Colours | None = None, shards: int = SHARDS) -> Built:
    """What the workflow does: list, embed every shard, join."""
    write_listing(folder, None, shards, Path("files.parquet"))
    for shard in range(shards):
        embed(folder, model or Colours(), shard, shards)
    return build([Path(f"shards/{shard}.parquet") for shard in range(shards)], store, model or Colours())


def rows(store: Path | str) -> list[dict]:
    archive = Archive.open(store)
    found = archive.read(archive.table.schema.names).read_all().to_pylist()
    return sorted(found, key=lambda row: row["id"])


def test_the_list_has_every_image_once_and_a_new_one_moves_no_other(images: Path) -> None:
    def listed() -> dict[str, int]:
        write_listing(images, {"red/1.png": "x"}, 5, Path("files.parquet"))
        return {found.file: shard for shard in range(5) for found in read_listing(Path("files.parquet"), shard)}

    before = listed()
    assert sorted(before) == sorted(path.relative_to(images).as_posix() for path in images.glob("*/*"))
    (first,) = [
        found for found in read_listing(Path("files.parquet"), before["red/1.png"]) if found.file == "red/1.png"
    ]
    status = (images / "red/1.png").stat()
    assert (first.label, first.size, first.mtime_ns) == ("x", status.st_size, status.st_mtime_ns)
    square(images / "green/new.png", (1, 200, 1))
    after = listed()
    assert {file: shard for file, shard in after.items() if file != "green/new.png"} == before


def test_shards_are_of_about_equal_size(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / f"many/{number}.png").touch()
    write_listing(tmp_path / "many", None, 3, Path("files.parquet"))
    assert all(75 <= size <= 125 for size in Counter(pq.read_table("files.parquet")["shard"].to_pylist()).values())


@pytest.mark.parametrize("shards", [1, SHARDS, 40])
def test_joined_shards_are_what_one_run_writes(images: Path, store: Path, shards: int) -> None:
    """Also where there are more shards than images."""
    once = index(images, store, Colours(), "colours", tiling=TILING)
    built = joined(images, Path("joined.lance"), shards=shards)
    assert rows("joined.lance") == rows(store)
    assert built.skipped == once.skipped == [("red/broken.png", "the file is empty")]
    assert built.rows == len(rows(store)) == 12 + 16
    one, other = (Archive.open(path).settings.model_dump(exclude={"id", "version"}) for path in (store, "joined.lance"))
    assert one == other
    assert str(index(images, "joined.lance", Colours(), "colours")).startswith("0 embedded, 0 removed, 13 unchanged")


class Interrupted(Exception):
    pass


def test_an_interrupted_shard_is_resumed_and_a_repeated_one_embeds_what_is_new(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "ENCODED_AT_ONCE", 4)
    monkeypatch.setattr(indexing, "ROWS_PER_COMMIT", 4)
    write_listing(images, None, 1, Path("files.parquet"))
    model, encode = Colours(), Colours.encode_images

    def until(images):
        if model.images >= 8:
            raise Interrupted
        return encode(model, images)

    monkeypatch.setattr(model, "encode_images", until)
    with pytest.raises(Interrupted):
        embed(images, model, 0, 1)
    assert not Path("shards/0.parquet").exists()
    rest = Colours()
    embed(images, rest, 0, 1)
    assert rest.images == 28 - 8 and len(pq.read_table("shards/0.parquet")) == 28
    square(images / "green/new.png", (1, 200, 1))
    (images / "red/0.png").unlink()
    again = Colours()
    write_listing(images, None, 1, Path("files.parquet"))
    assert embed(images, again, 0, 1) == "1 embedded, 1 removed, 12 unchanged, 1 skipped" and again.images == 1
    assert len(list(STATE.glob("*/0.lance"))) == 1


def test_an_archive_that_is_built_again_has_the_new_rows_and_model(images: Path, store: Path) -> None:
    joined(images, store)
    first, again = Archive.open(store).settings, Colours()
    joined(images, store, again)
    assert again.images == 0
    (images / "red/0.png").unlink()
    joined(images, store, Colours("b"))
    second = Archive.open(store).settings
    assert len(rows(store)) == 27 and "red/0.png" not in [row["file"] for row in rows(store)]
    assert second.digest == Colours("b").digest != first.digest and second.id == first.id != ""
    assert len(Searcher(Archive.open(store)).search(Colours().encode_texts(["red"])[0], 100)) == 27


def test_what_does_not_belong_together_is_refused(images: Path, store: Path, tmp_path: Path) -> None:
    joined(images, store)
    before = rows(store)
    with pytest.raises(UserError, match="shard 0 is of another model"):
        build([Path("shards/0.parquet")], store, Colours("b"))
    other = squares(tmp_path / "other")
    for folder, model, tiling in (
        (images, Colours("b"), TILING), (images, Colours(), Tiling(tile=64, overlap=0)), (other, Colours(), TILING),
    ):  # fmt: skip
        embed(folder, model, 1, tiling=tiling)
        with pytest.raises(UserError, match="shard 1 is of another model, folder or tiling than the archive; embed it"):
            build([Path(f"shards/{n}.parquet") for n in range(2)], store, Colours())
    with pytest.raises(UserError, match=r"9\.parquet cannot be read: .*`cmer embed-shard` writes it"):
        build([Path("shards/9.parquet")], store, Colours())
    with pytest.raises(UserError, match=r"files\.parquet is not a shard"):
        build([Path("files.parquet")], store, Colours())
    with pytest.raises(UserError, match=r"none\.parquet cannot be read: .*`cmer list-images` writes it"):
        read_listing(Path("none.parquet"), 0)
    with pytest.raises(UserError, match="is an archive of"):
        joined(other, store)
    assert rows(store) == before


def test_the_commands_do_what_the_rules_ask_of_them(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes: list[str | None] = []

    def load(source: str, runtime: str | None = None) -> Colours:
        runtimes.append(runtime)
        return Colours()

    monkeypatch.setattr("cmer.inference.model.load", load)
    Path("labels.csv").write_text("file,label\nred/0.png,pond\n")
    entry = {"folder": str(images), "labels": "labels.csv", "shards": 2, "checkpoint": "colours", "store": "x.lance"}
    entry |= {"runtime": "openvino"}
    planned = plan(MINIMAL | {"archives": {"mine": entry}})
    shard = ("--spec", planned.shard_spec("mine"), "--run", planned.archive_run("mine"))

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception:
            raise result.exception
        return result.output

    listed = call("list-images", "--spec", planned.listing_spec("mine"), "--out", "files.parquet")
    assert listed == "14 images\n"
    said = ""
    for number in range(2):
        said += call(
            "embed-shard", *shard, "--files", "files.parquet", "--shard", number, "--out", f"s/{number}.parquet"
        )
    assert said.count("skipped red/broken.png: the file is empty") == 1
    built = call("build-archive", *shard, "--shards", "s", "--store", "x.lance", "--out", "built.json")
    assert built == "x.lance: 13 rows, 1 images skipped\n"
    assert runtimes == ["openvino", "openvino", None]
    found = read_sealed("built.json", "cmer build-archive")
    assert (found["rows"], found["skipped"]) == (13, [["red/broken.png", "the file is empty"]])
    assert {row["file"] for row in rows("x.lance") if row["label"]} == {"red/0.png"}


def test_the_shard_has_the_skipped_files_in_its_metadata(images: Path) -> None:
    write_listing(images, None, 1, Path("files.parquet"))
    embed(images, Colours(), 0, 1)
    metadata = pq.read_schema("shards/0.parquet").metadata
    assert json.loads(metadata[b"cmer.skipped"]) == [["red/broken.png", "the file is empty"]]
