"""An object store that refuses, or goes away, while an archive is written or read: one sentence, and nothing lost."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from archive_cases import Colours
from s3 import environment, serving

from cmer.archive import index as indexing
from cmer.archive.export import export
from cmer.archive.index import index
from cmer.archive.places import Bucket
from cmer.archive.search import Searcher
from cmer.archive.store import Archive
from cmer.errors import UserError

moto = pytest.importorskip("moto.server")
ANSWER = moto.DomainDispatcherApplication.__call__
NUMBERS = count()
REMEDY = "check the bucket's name, AWS_ENDPOINT_URL, AWS_REGION and the credentials, then rerun the same command"
SILENT = f"cannot be reached: the object store does not answer; {REMEDY}"


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commits for twelve images, a cache, and no patience."""
    monkeypatch.setenv("OBJECT_STORE_CLIENT_MAX_RETRIES", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(indexing, "ENCODED_AT_ONCE", 4)
    monkeypatch.setattr(indexing, "ROWS_PER_COMMIT", 8)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """A server, which closes when the stack does."""
    with ExitStack() as stack:
        for name, value in environment(stack.enter_context(serving("archives"))).items():
            monkeypatch.setenv(name, value)
        yield stack


@pytest.fixture
def url() -> str:
    """As buckets outlive their servers, an archive of its own for each test."""
    return f"s3://archives/failures/{next(NUMBERS)}.lance"


class Refusals:
    """Requests that write, which a server answers with an error.

    Attributes:
        allowed: how many it still answers as it should; None: all.
        done: whether it does nevertheless what the others ask, as if its answer were lost.
    """

    allowed: int | None = None
    done = False

    def answer(self, server, environ, start):
        if environ["REQUEST_METHOD"] != "PUT" or self.allowed is None:
            return ANSWER(server, environ, start)
        self.allowed -= 1
        if self.allowed >= 0:
            return ANSWER(server, environ, start)
        if self.done:
            list(ANSWER(server, environ, lambda *_: None))
        body = b"<Error><Code>AccessDenied</Code><Message>Access denied</Message></Error>"
        start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture
def refusals(server: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Refusals:
    found = Refusals()
    monkeypatch.setattr(moto.DomainDispatcherApplication, "__call__", lambda *given: found.answer(*given))
    return found


@contextmanager
def checking_credentials() -> Iterator[None]:
    """Let the server refuse keys that it did not make, as those of the tests."""
    address, plain = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", {"Content-Type": "text/plain"}
    urlopen(Request(address, b"0", plain))
    try:
        yield
    finally:
        urlopen(Request(address, b"inf", plain))


def files(url: str) -> list[str]:
    found = Archive.open(url, to_write=True).read(["file"]).read_all()["file"].to_pylist()
    return sorted(found)


def wanted(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


@pytest.mark.parametrize("done", [False, True])
def test_a_run_that_fails_at_any_of_its_writes_is_resumed_without_loss_or_doubles(
    folder: Path, refusals: Refusals, done: bool
) -> None:
    """Whether or not the bucket did what it was asked."""
    for allowed in count():
        url = f"s3://archives/failures/{done}-{allowed}.lance"
        refusals.allowed, refusals.done = allowed, done
        try:
            index(folder, url, Colours(), "colours")
            break
        except UserError as error:
            assert str(error).startswith(f"{url} cannot be reached: ") and str(error).endswith(REMEDY)
            assert "denied" in str(error).lower() and "\n" not in str(error) and len(str(error)) < 300
        refusals.allowed = None
        index(folder, url, Colours(), "colours")
        assert files(url) == wanted(folder)
    assert allowed > 10


def test_a_run_whose_server_dies_keeps_its_commits_and_resumes(folder: Path, url: str, server: ExitStack) -> None:
    class Fatal(Colours):
        def encode_images(self, images):
            if self.images == 8:
                server.close()
            return super().encode_images(images)

    with pytest.raises(UserError, match=f"^{url} cannot be reached: NETWORK_CONNECTION .*{REMEDY}$"):
        index(folder, url, Fatal(), "colours")
    with serving("archives", urlsplit(os.environ["AWS_ENDPOINT_URL"]).port):
        assert len(files(url)) == 8
        assert str(index(folder, url, Colours(), "colours")) == "4 embedded, 0 removed, 8 unchanged"
        assert files(url) == wanted(folder)


def test_whoever_reads_when_the_server_is_gone_is_told(
    folder: Path, url: str, server: ExitStack, tmp_path: Path
) -> None:
    index(folder, url, Colours(), "colours")
    archive, query = Archive.open(url), Colours().encode_texts(["red"])[0]
    searcher, other, batches = Searcher(archive), Archive.open(url), Archive.open(url).read(["file"])
    server.close()
    for read in (
        lambda: searcher.search(query, 3), lambda: searcher.find("x"), lambda: export(other, tmp_path / "x.parquet"),
        batches.read_all,
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"^{url} {SILENT}$"):
            read()
    with pytest.raises(UserError, match=f"{url} cannot be reached: NETWORK_CONNECTION .*{REMEDY}"):
        Archive.open(url)


def test_another_error_of_a_run_is_left_as_it_is(folder: Path, url: str, server: ExitStack) -> None:
    class Broken(Colours):
        def encode_images(self, images):
            raise RuntimeError("the model fails")

    with pytest.raises(RuntimeError, match="the model fails"):
        index(folder, url, Broken(), "colours")


def test_an_archive_that_is_lost_on_the_way_is_not_called_damaged(
    folder: Path, url: str, server: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody shall remove it."""
    index(folder, url, Colours(), "colours")
    read = Bucket.read_settings

    def then_close(place: Bucket):
        settings = read(place)
        server.close()
        return settings

    monkeypatch.setattr(Bucket, "read_settings", then_close)
    with pytest.raises(UserError, match=f"^{url} {SILENT}$"):
        Archive.open(url)


def test_other_credentials_and_buckets_are_refused_in_a_sentence(folder: Path, url: str, server: ExitStack) -> None:
    with pytest.raises(UserError, match=f"^s3://none-such/a cannot be reached: there is no such bucket; {REMEDY}$"):
        index(folder, "s3://none-such/a", Colours(), "colours")
    index(folder, url, Colours(), "colours")
    archive = Archive.open(url)
    with checking_credentials(), pytest.raises(UserError, match=f"{url} cannot be reached: InvalidAccessKeyId: .*"):
        Searcher(archive)
    with checking_credentials(), pytest.raises(UserError, match=f"{url} cannot be reached: .*{REMEDY}"):
        index(folder, url, Colours(), "colours")
    assert str(index(folder, url, Colours(), "colours")) == "0 embedded, 0 removed, 12 unchanged"
