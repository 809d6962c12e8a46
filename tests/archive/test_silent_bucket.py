"""An object store that falls silent or is slow, and a bucket or an archive in it that somebody removes."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import boto3
import pytest
from archive_cases import Colours
from fastapi.testclient import TestClient
from s3 import KEY, environment, serving

from cmer.archive import index as indexing
from cmer.archive import places
from cmer.archive.export import export
from cmer.archive.index import index
from cmer.archive.places import place_of
from cmer.archive.search import Searcher
from cmer.archive.serve.app import create_app
from cmer.archive.store import Archive
from cmer.archive.trouble import StoreError

moto = pytest.importorskip("moto.server")
ANSWER = moto.DomainDispatcherApplication.__call__
NUMBERS = count()


class Server:
    """Answers as moto does; while `silent` it keeps requests waiting, which a client must give up first.

    Attributes:
        address: where it is.
        silent: whether it keeps requests waiting.
        delay: seconds before each answer.
    """

    def __init__(self, address: str) -> None:
        self.address, self.silent, self.delay = address, False, 0.0
        self.over = threading.Event()

    def answer(self, server, environ, start):
        time.sleep(self.delay)
        if self.silent and not environ["PATH_INFO"].startswith("/moto-api"):
            self.over.wait(8)
        return ANSWER(server, environ, start)

    def bucket(self):
        return boto3.resource("s3", endpoint_url=self.address, **KEY).Bucket("archives")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, twelve images in two commits, a cache, and little patience; LanceDB's own would be two minutes."""
    monkeypatch.setenv("OBJECT_STORE_CLIENT_MAX_RETRIES", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in (("SECONDS", 1.0), ("ATTEMPTS", 1), ("PATIENCE", 0.05)):
        monkeypatch.setattr(places, name, value)
    monkeypatch.setattr(indexing, "ENCODED_AT_ONCE", 4)
    monkeypatch.setattr(indexing, "ROWS_PER_COMMIT", 8)
    with serving("archives") as address:
        found = Server(address)
        for name, value in environment(address).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(moto.DomainDispatcherApplication, "__call__", lambda *given: found.answer(*given))
        yield found
        found.silent = False
        found.over.set()


@pytest.fixture
def url() -> str:
    return f"s3://archives/silent/{next(NUMBERS)}.lance"


class Then(Colours):
    """Does something before it embeds the third batch, after the first commit."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.act = act

    def encode_images(self, images):
        if self.images == 8:
            self.act()
        return super().encode_images(images)


def silence(server: Server) -> None:
    server.silent = True


def files(url: str) -> list[str]:
    return sorted(Archive.open(url).read(["file"]).read_all()["file"].to_pylist())


def wanted(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


def test_an_address_that_never_answers_is_a_sentence(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(places, "SECONDS", 1.0)
    monkeypatch.setattr(places, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        for name, value in environment(f"http://127.0.0.1:{port}").items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StoreError, match=r"^s3://archives/a cannot be reached: .*; check the bucket's name"):
            index(folder, "s3://archives/a", Colours(), "colours")


def test_a_store_that_falls_silent_while_it_is_written_loses_nothing(folder: Path, url: str, server: Server) -> None:
    with pytest.raises(StoreError, match=f"^{url} cannot be reached: .* then rerun the same command$"):
        index(folder, url, Then(lambda: silence(server)), "colours")
    server.silent = False
    assert str(index(folder, url, Colours(), "colours")) == "4 embedded, 0 removed, 8 unchanged"
    assert files(url) == wanted(folder)


def test_a_request_that_is_under_way_when_the_store_falls_silent_is_given_up(
    folder: Path, url: str, server: Server
) -> None:
    index(folder, url, Colours(), "colours")
    searcher = Searcher(Archive.open(url))
    silence(server)
    with pytest.raises(StoreError, match=f"^{url} cannot be reached: "):
        searcher.search(Colours().encode_texts(["red"])[0], 3)


def test_a_slow_store_is_waited_for(folder: Path, url: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer takes longer than the patience with LanceDB's requests."""
    asked = []
    exists = places.Bucket.exists
    monkeypatch.setattr(places.Bucket, "exists", lambda place: asked.append(place) or exists(place))
    monkeypatch.setattr(places, "PATIENCE", 0.01)
    server.delay = 0.03
    assert str(index(folder, url, Colours(), "colours")) == "12 embedded, 0 removed, 0 unchanged"
    assert len(asked) > 10, "whether it is still there"
    server.delay = 0.0
    assert files(url) == wanted(folder)


def test_both_clients_take_their_time_from_the_variable_that_lancedb_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict] = []
    monkeypatch.setattr("pyarrow.fs.S3FileSystem", lambda **options: seen.append(options))
    monkeypatch.delenv("AWS_TIMEOUT", raising=False)
    monkeypatch.delenv("TIMEOUT", raising=False)
    for value in (None, "90s"):
        if value:
            monkeypatch.setenv("AWS_TIMEOUT", value)
        place = place_of("s3://archives/a")
        with place._files():
            pass
        assert place.options.get("timeout") == (None if value else "120s")
    assert [(each["request_timeout"], each["connect_timeout"]) for each in seen] == [(12, 12), (90, 90)]
    assert seen[0]["retry_strategy"].max_attempts == 2


@pytest.mark.parametrize("whole", [False, True])
def test_an_archive_or_bucket_that_is_removed_while_it_is_written_is_not_made_up(
    folder: Path, url: str, server: Server, whole: bool
) -> None:
    def remove() -> None:
        server.bucket().objects.filter(Prefix="" if whole else url.removeprefix("s3://archives/")).delete()
        if whole:
            server.bucket().delete()

    with pytest.raises(StoreError, match=f"^{url} was removed, or replaced by another archive, in the meantime"):
        index(folder, url, Then(remove), "colours")
    if whole:
        server.bucket().create()
    assert not list(server.bucket().objects.filter(Prefix=url.removeprefix("s3://archives/")))
    assert str(index(folder, url, Colours(), "colours")) == "12 embedded, 0 removed, 0 unchanged"
    assert files(url) == wanted(folder)


def test_an_archive_that_is_removed_while_it_is_opened_is_gone(
    url: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places.Bucket, "exists", lambda place: True)
    with pytest.raises(StoreError, match=f"^{url} was removed, or replaced by another archive, in the meantime"):
        Archive.open(url)


def test_an_archive_that_is_replaced_while_it_is_written_keeps_the_rows_of_its_successor(
    folder: Path, url: str, server: Server
) -> None:
    def replace() -> None:
        server.bucket().objects.filter(Prefix=url.removeprefix("s3://archives/")).delete()
        index(folder, url, Colours(), "colours")

    with pytest.raises(StoreError, match="was removed, or replaced by another archive, in the meantime"):
        index(folder, url, Then(replace), "colours")
    assert files(url) == wanted(folder)


def test_a_lost_object_is_a_sentence_and_the_server_stays_up(
    folder: Path, url: str, server: Server, tmp_path: Path
) -> None:
    index(folder, url, Colours(), "colours")
    client = TestClient(create_app(Archive.open(url), Colours()), base_url="http://localhost")
    hit = client.post("/api/search", data={"text": "red"}).json()["hits"][0]
    prefix = url.removeprefix("s3://archives/") + "/images.lance/data/"
    kept = [(each.key, each.get()["Body"].read()) for each in server.bucket().objects.filter(Prefix=prefix)]
    server.bucket().objects.filter(Prefix=prefix).delete()
    reasons = f"{url} is damaged: .*; rerun the same command, or remove the archive and run `cmer index` again"
    query = Colours().encode_texts(["red"])[0]
    for read in (
        lambda: Searcher(Archive.open(url)).search(query, 3),
        lambda: export(Archive.open(url), tmp_path / "x.parquet"),
        lambda: index(folder, url, Colours(), "colours"),
    ):
        with pytest.raises(StoreError, match=f"^{reasons}$"):
            read()
    paths = (f"/api/images/{hit['id']}", f"/api/images/{hit['id']}/picture")
    for answer in (client.post("/api/search", data={"text": "red"}), *map(client.get, paths)):
        assert answer.status_code == 503 and "is damaged" in answer.json()["detail"]
    for key, content in kept:
        server.bucket().put_object(Key=key, Body=content)
    assert client.post("/api/search", data={"text": "red"}).json()["hits"][0] == hit
    server.bucket().objects.filter(Prefix=url.removeprefix("s3://archives/")).delete()
    answer = client.post("/api/search", data={"text": "green"})
    assert answer.status_code == 503 and "was removed" in answer.json()["detail"]
    assert client.get("/api/archive").status_code == 200
