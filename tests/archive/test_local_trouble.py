"""A folder of an archive that is removed, damaged, full, or of another version: one sentence, and nothing made up."""

import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lancedb
import numpy as np
import pytest
from archive_cases import Colours, square, squares
from fastapi.testclient import TestClient

from cmer.archive import index as indexing
from cmer.archive.export import export
from cmer.archive.index import index
from cmer.archive.search import Searcher
from cmer.archive.serve.app import create_app
from cmer.archive.store import Archive
from cmer.archive.trouble import StoreError

RED = Colours().encode_texts(["red"])[0]


def readers(folder: Path, store: Path, out: Path) -> tuple[Callable[[], object], ...]:
    """All that reads an archive."""
    return (
        lambda: Searcher(Archive.open(store)).search(RED, 3),
        lambda: export(Archive.open(store), out),
        lambda: index(folder, store, Colours(), "colours"),
    )


@pytest.fixture
def archive(folder: Path, store: Path) -> Archive:
    index(folder, store, Colours(), "colours")
    return Archive.open(store)


def data(store: Path) -> list[Path]:
    return list(store.glob("images.lance/data/*"))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_is_removed_while_it_is_written_is_not_made_up(
    folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """LanceDB would write the other rows beside rows that are gone; a successor's rows are kept."""
    monkeypatch.setattr(indexing, "ENCODED_AT_ONCE", 4)
    monkeypatch.setattr(indexing, "ROWS_PER_COMMIT", 8)

    class Removing(Colours):
        def encode_images(self, images):
            if self.images == 8:
                shutil.rmtree(store)
                if replaced:
                    index(folder, store, Colours(), "colours")
            return super().encode_images(images)

    with pytest.raises(StoreError, match=f"^{store} was removed, or replaced by another archive, in the meantime"):
        index(folder, store, Removing(), "colours")
    assert store.exists() == replaced
    assert str(index(folder, store, Colours(), "colours")).endswith(f"0 removed, {12 * replaced} unchanged")
    assert len(Archive.open(store).read(["id"]).read_all()) == 12


def test_settings_are_not_written_where_the_archive_was(store: Path, archive: Archive) -> None:
    shutil.rmtree(store)
    with pytest.raises(StoreError, match=f"^{store} was removed"):
        archive.change(probes=10)
    assert not store.exists()


def test_another_archive_in_its_place_gets_no_ann_index(folder: Path, store: Path, archive: Archive) -> None:
    shutil.rmtree(store)
    index(folder, store, Colours(), "colours")
    with pytest.raises(StoreError, match=f"^{store} was removed, or replaced by another archive"):
        archive.index_vectors()


def test_rows_that_are_lost_while_the_index_is_checked_are_a_sentence(tmp_path: Path, store: Path) -> None:
    class Losing(Colours):
        def encode_texts(self, texts):  # after the ANN index is built, before it is searched
            shutil.rmtree(store / "images.lance/data")
            return super().encode_texts(texts)

    with pytest.raises(StoreError, match=f"^{store} is damaged: "):
        index(squares(tmp_path / "many", 100), store, Losing(), "colours", exact_up_to=256)


def test_an_older_state_is_not_searched_in_place_of_a_damaged_one(store: Path, archive: Archive) -> None:
    assert list(store.glob("vectors.*.npy"))
    archive.add(archive.read(archive.table.schema.names).read_all())
    for path in data(store):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=f"^{store} is damaged: "):
        Searcher(Archive.open(store))


@pytest.mark.parametrize("size", [0, 100])
def test_a_truncated_file_of_the_table_is_a_sentence(
    folder: Path, store: Path, archive: Archive, tmp_path: Path, size: int
) -> None:
    for path in data(store):
        path.write_bytes(path.read_bytes()[:size])
    for read in readers(folder, store, tmp_path / "x.parquet"):
        with pytest.raises(StoreError, match=f"^{store} is damaged: [^/]*; rerun the same command, or remove the arch"):
            read()
    assert not (tmp_path / "x.parquet").exists()


def test_a_server_stays_up_while_its_archive_is_away(store: Path, archive: Archive) -> None:
    client = TestClient(create_app(archive, Colours()), base_url="http://localhost")
    before = client.post("/api/search", data={"text": "red"})
    store.rename(store.with_suffix(".aside"))
    for answer in (
        client.post("/api/search", data={"text": "red"}), client.get("/api/footprints"),
        client.get(f"/api/images/{before.json()['hits'][0]['id']}/picture"),
    ):  # fmt: skip
        assert answer.status_code == 503 and answer.json()["detail"].startswith(f"{store} was removed")
    assert client.get("/api/archive").status_code == 200
    assert "503" in client.get("/openapi.json").json()["paths"]["/api/search"]["post"]["responses"]
    store.with_suffix(".aside").rename(store)
    assert client.post("/api/search", data={"text": "red"}).json() == before.json()


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files of this process may have at most `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("changed", [False, True])
def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path, store: Path, changed: bool) -> None:
    """LanceDB commits a changed row although its file was cut short, which must be undone."""
    folder = squares(tmp_path / "images")
    index(folder, store, Colours(), "colours")
    vectors = Archive.open(store).read(["file", "vector"]).read_all()
    for number in range(60):
        square(folder / f"red/new{number}.png", (250, number, 0))
    if changed:
        squares(folder)  # of the same content, at another time
    reason = r"\w+\.lance was cut short; free disk space" if changed else "File too large; free disk space or .* folder"
    with full_disk(4096), pytest.raises(StoreError, match=f"^{store}: {reason}, then rerun the same command$"):
        index(folder, store, Colours(), "colours")
    assert Archive.open(store).read(["file", "vector"]).read_all() == vectors
    assert len(Searcher(Archive.open(store)).search(RED, 200)) == 12
    said = str(index(folder, store, Colours(), "colours"))
    assert said == "60 embedded, 0 removed, 12 unchanged" + ", 12 updated" * changed
    assert len(Archive.open(store).read(["vector"]).read_all()) == 72


def test_a_damaged_file_of_vectors_is_named_and_written_again(store: Path, archive: Archive) -> None:
    found = Searcher(archive).search(RED, 3)
    for name in ("vectors", "rows"):
        (path,) = store.glob(f"{name}.*.npy")
        whole = path.read_bytes()
        for damaged in (whole[:-1], whole[:10], b""):
            path.write_bytes(damaged)
            with pytest.raises(StoreError, match=f"^{path} is damaged; remove it and rerun the same command"):
                Searcher(Archive.open(store))
        path.unlink()
        assert Searcher(Archive.open(store)).search(RED, 3) == found
        assert path.read_bytes() == whole


def test_a_file_of_vectors_that_cannot_be_opened_is_not_called_damaged(store: Path, archive: Archive) -> None:
    (path,) = store.glob("vectors.*.npy")
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=str(path)):
        Searcher(archive)


def test_a_file_of_too_few_vectors_is_named(store: Path, archive: Archive) -> None:
    (path,) = store.glob("vectors.*.npy")
    np.save(path, np.load(path)[:5])
    with pytest.raises(StoreError, match="is damaged; remove it"):
        Searcher(archive)


def test_a_table_of_a_newer_lancedb_is_not_called_damaged(
    folder: Path, store: Path, archive: Archive, tmp_path: Path
) -> None:
    """Its manifest, a message of protocol buffers, sets a flag of readers that this version does not know."""
    (manifest,) = sorted(store.glob("images.lance/_versions/*.manifest"))[:1]
    text = manifest.read_bytes()
    start = struct.unpack("<Q", text[-16:-8])[0]
    size = struct.unpack("<I", text[start : start + 4])[0]
    flags = bytes([9 << 3, 0x80, 0x80, 0x80, 0x80, 0x04])
    message = text[start + 4 : start + 4 + size] + flags
    manifest.write_bytes(text[:start] + struct.pack("<I", len(message)) + message + text[-16:])
    for read in readers(folder, store, tmp_path / "x.parquet"):
        with pytest.raises(StoreError, match=f"^{store} was written with a newer LanceDB; upgrade"):
            read()


def test_a_table_of_another_layout_is_a_sentence(folder: Path, store: Path, archive: Archive, tmp_path: Path) -> None:
    lancedb.connect(store).open_table("images").drop_columns(["label", "tiles"])
    for read in readers(folder, store, tmp_path / "x.parquet"):
        with pytest.raises(StoreError, match=f"^{store} cannot be read: its columns are not those of this version"):
            read()


def test_an_unreadable_table_is_damaged_and_an_error_of_the_model_is_not(folder: Path, store: Path) -> None:
    class Broken(Colours):
        def encode_images(self, images):
            raise RuntimeError("the model fails")

    with pytest.raises(RuntimeError, match=r"^the model fails$"):
        index(folder, store, Broken(), "colours")
    for path in store.glob("images.lance/_versions/*"):
        path.write_bytes(b"LANC")
    with pytest.raises(StoreError, match=f"^{store} is damaged: "):
        Archive.open(store)
