"""Archives in a bucket of an S3 server on loopback, as several machines see them."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from archive_cases import Colours, square, squares
from s3 import environment, serving

from cmer.archive import ann
from cmer.archive import index as indexing
from cmer.archive.export import export
from cmer.archive.index import index
from cmer.archive.places import place_of
from cmer.archive.search import Filters, Searcher
from cmer.archive.store import TABLE, Archive, _connect
from cmer.cli.archive import app
from cmer.errors import UserError

pytest.importorskip("moto.server")
NUMBERS = count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of the server, with the bucket `archives`."""
    with serving("archives") as address:
        yield address


@pytest.fixture
def machine(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Become a machine: one with credentials and an empty cache of its own."""

    def become(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    become("first")
    return become


@pytest.fixture
def url(machine) -> str:
    return f"s3://archives/tests/{next(NUMBERS)}.lance"


def answers(where: Path | str, top: int = 20) -> list[tuple[str, float]]:
    searcher = Searcher(Archive.open(where))
    hits = [hit for text in ("red", "green", "blue") for hit in searcher.search(Colours().encode_texts([text])[0], top)]
    return [(hit.file, round(hit.score, 6)) for hit in hits]


def run(folder: Path, where: Path | str, **how) -> str:
    return str(index(folder, where, Colours(), "colours", **how))


def test_a_bucket_answers_as_a_folder_does_also_after_changes(folder: Path, store: Path, url: str, machine) -> None:
    for where in (store, url):
        assert run(folder, where) == "12 embedded, 0 removed, 0 unchanged"
    assert answers(url) == answers(store)
    square(folder / "red/9.png", (250, 0, 0))
    (folder / "blue/0.png").unlink()
    machine("second")
    for where in (store, url):
        assert run(folder, where) == "1 embedded, 1 removed, 11 unchanged"
    assert answers(url) == answers(store)
    machine("first")
    assert answers(url) == answers(store)
    exported = [store.with_suffix(f".{n}.parquet") for n in (1, 2)]
    assert [export(Archive.open(where), out) for where, out in zip((store, url), exported, strict=True)] == [12, 12]
    local, remote = (pq.read_table(path).sort_by("id") for path in exported)
    assert local.equals(remote)


def test_each_machine_keeps_the_vectors_of_one_version_in_its_cache(
    folder: Path, url: str, machine, tmp_path: Path
) -> None:
    run(folder, url)
    assert not (tmp_path / "first").exists(), "a machine that does not search keeps nothing"
    for name in ("first", "second"):
        machine(name)
        answers(url)
        answers(url)
        (vectors,) = (tmp_path / name).rglob("vectors.*.npy")
        assert np.load(vectors).shape == (12, 6)
    (folder / "red/0.png").unlink()
    run(folder, url)
    answers(url)
    (vectors,) = (tmp_path / "second").rglob("vectors.*.npy")
    assert np.load(vectors).shape == (11, 6)


def test_what_is_read_is_the_last_complete_state(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, url)
    before, seen = answers(url), []
    squares(folder, 8)
    monkeypatch.setattr(indexing, "ROWS_PER_COMMIT", 4)
    monkeypatch.setattr(indexing, "ENCODED_AT_ONCE", 4)

    class Watched(Colours):
        def encode_images(self, images):
            seen.append((Archive.open(url, to_write=True).count(), answers(url)))
            return super().encode_images(images)

    index(folder, url, Watched(), "colours")
    assert [rows for rows, _ in seen] == [12, 16, 20] and all(found == before for _, found in seen)
    assert len(answers(url)) == 60 and answers(url) != before


def test_an_archive_made_anew_is_not_mixed_up_with_its_predecessor(folder: Path, url: str, tmp_path: Path) -> None:
    run(folder, url)
    answers(url)
    version = Archive.open(url).table.version
    with place_of(url)._files() as files:
        files.delete_dir(url.removeprefix("s3://"))
    square(tmp_path / "other/red/only.png", (250, 0, 0))
    run(tmp_path / "other", url)
    assert Archive.open(url).table.version <= version
    assert {file for file, _ in answers(url)} == {"red/only.png"}


def test_a_copy_of_an_archive_is_not_mixed_up_with_it(folder: Path, url: str, tmp_path: Path) -> None:
    """It has the same id and may have the same versions."""
    run(folder, url)
    copy = url.replace(".lance", "-copy.lance")
    with place_of(url)._files() as files:
        pyarrow.fs.copy_files(
            url.removeprefix("s3://"), copy.removeprefix("s3://"), source_filesystem=files, destination_filesystem=files
        )
    for where, gone in ((url, "red/0.png"), (copy, "blue/0.png")):
        (folder / gone).rename(tmp_path / "aside.png")
        assert run(folder, where) == "0 embedded, 1 removed, 11 unchanged"
        (tmp_path / "aside.png").rename(folder / gone)
    assert Archive.open(url).table.version == Archive.open(copy).table.version
    for where, gone in ((url, "red/0.png"), (copy, "blue/0.png")):
        found = [hit.file for hit in Searcher(Archive.open(where)).search(Colours().encode_texts(["red"])[0], 20)]
        assert sorted([*found, gone]) == sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


def test_a_writer_stops_when_another_machine_has_written_and_doubles_are_mended(folder: Path, url: str) -> None:
    run(folder, url)
    mine, other = Archive.open(url, to_write=True), Archive.open(url, to_write=True)
    rows = mine.read(mine.table.schema.names, "label = 'red'").read_all()
    other.add(rows)
    for write in (lambda: mine.add(rows), lambda: mine.remove(["red/0.png"]), lambda: mine.update({"red/0.png": {}})):
        with pytest.raises(UserError, match="another `cmer index` is writing to s3://archives"):
            write()
    assert Archive.open(url, to_write=True).count() == 16
    other.add(rows)  # its own commits do not stop it
    assert run(folder, url) == "4 embedded, 0 removed, 8 unchanged"
    found = Archive.open(url).read(["file"]).read_all()["file"].to_pylist()
    assert len(found) == len(set(found)) == 12


def test_no_commit_of_several_writers_is_lost(folder: Path, url: str) -> None:
    """Which LanceDB answers for, with conditional writes of the server."""
    run(folder, url)
    archive = Archive.open(url, to_write=True)
    row = archive.read(archive.table.schema.names, "file = 'red/0.png'").read_all()

    def append(_: int) -> None:
        table = _connect(archive.place).open_table(TABLE)
        for _ in range(3):
            table.add(row)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(4)))
    assert Archive.open(url, to_write=True).count() == 12 + 4 * 3


def test_a_bucket_is_searched_with_an_index_that_finds_what_brute_force_does(
    tmp_path: Path, url: str, machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann, "QUERIES", 10)
    folder = squares(tmp_path / "images", 100)
    said = index(folder, url, Colours(), "colours", exact_up_to=256).recall
    assert said is not None and min(said.texts, said.images) >= ann.TARGET
    machine("second")
    for number in range(3):
        square(folder / f"red/new{number}.png", (240, 10 * number, 5))
    assert run(folder, url, exact_up_to=256) == "3 embedded, 0 removed, 300 unchanged"
    machine("third")
    rows = Archive.open(url).read(["id", "vector"]).read_all()
    vectors, queries = np.array(rows["vector"].to_pylist()), np.random.default_rng(0).uniform(1, 2, (20, 6))
    searcher, shares = Searcher(Archive.open(url)), []
    for query in (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32):
        true = {rows["id"][row].as_py() for row in np.argsort(-(vectors @ query))[:10]}
        shares.append(len({hit.id for hit in searcher.search(query, 10)} & true) / 10)
    assert searcher.approximate and np.mean(shares) >= ann.TARGET
    assert "red/new0.png" in [hit.file for hit in searcher.search(Colours().encode_texts(["red"])[0], 3)]
    assert not (tmp_path / "third").exists(), "a machine that searches with the index keeps no vectors"
    assert {hit.label for hit in searcher.search(query, 10, Filters(("green",)))} == {"green"}


@pytest.mark.parametrize("where", ["gs://bucket/a", "s3://bucket", "s3:///a", "s3://bucket/a b", "https://host/a"])
def test_other_urls_are_refused(where: str) -> None:
    with pytest.raises(UserError, match=r"is not an archive's URL, such as s3://bucket/archive\.lance"):
        Archive.open(where)


def test_what_cannot_be_reached_is_a_sentence(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=re.escape(f"{url} is not an archive; `cmer index FOLDER --run RUN")):
        Archive.open(url)
    with place_of(url)._files() as files, files.open_output_stream(url.removeprefix("s3://") + "/notes.txt") as file:
        file.write(b"something else")
    with pytest.raises(UserError, match=re.escape("is not an archive, but holds notes.txt; choose another --store")):
        run(folder, url)
    with pytest.raises(UserError, match=r"cannot be reached: .*check the bucket's name"):
        run(folder, "s3://no-such-bucket/a.lance")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be reached: .*AWS_ENDPOINT_URL"):
        Archive.open(url)


def test_the_commands_take_a_url(folder: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    monkeypatch.setattr("cmer.inference.model.load", lambda source, runtime=None: Colours())

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception:
            raise result.exception
        return result.stdout

    assert call("index", folder, "--run", "colours", "--store", url) == f"{url}: 12 embedded, 0 removed, 0 unchanged\n"
    assert "red/0.png" in call("search", url, "red", "--top", 3)
    assert call("export-archive", url, "--out", tmp_path / "x.parquet").endswith(": 12 rows\n")
    started = []
    monkeypatch.setattr("uvicorn.run", lambda served, **how: started.append(served))
    call("serve", url)
    assert len(started) == 1
