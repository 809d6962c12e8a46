"""Downloads from a web server that misbehaves."""

import hashlib
import resource
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from fetch_cases import Answer, Loopback, assert_whole, known, layout, local, make_tar, make_zip

from cmer.data.fetch import download, fetch_dataset
from cmer.errors import UserError

FILES = layout(lists=False)


@pytest.fixture
def archive(tmp_path: Path, web: Loopback) -> bytes:
    """A copy, served as /a.zip."""
    web.files["/a.zip"] = make_zip(tmp_path / "served.zip", FILES).read_bytes()
    return web.files["/a.zip"]


def fetched(web: Loopback, *sources: object) -> list[str]:
    """Fetch /a.zip into out, and there is the dataset; what was skipped is returned."""
    skipped = fetch_dataset(known(*(sources or [web.source("/a.zip")])), "out").skipped
    assert_whole(Path("out"))
    return skipped


def refused(web: Loopback, sha256: str | None = None) -> str:
    """Why /a.zip is not to be had; no half of it is left as a whole."""
    with pytest.raises(UserError) as error:
        fetch_dataset(known(web.source("/a.zip", sha256)), "out")
    assert not Path("out").exists() and not list(Path("work/downloads").glob("*.zip"))
    return str(error.value)


def part() -> Path:
    (path,) = Path("work/downloads").glob("*.part")
    return path


def test_a_zip_is_fetched_once_and_kept(web: Loopback, archive: bytes) -> None:
    assert fetched(web) == [] and web.ranges == [None]
    assert web.requests[0].headers["Accept-Encoding"] == "identity"
    (kept,) = (path for path in Path("work/downloads").iterdir() if path.suffix != ".lock")
    assert kept.name.endswith("a.zip") and kept.read_bytes() == archive
    fetched(web)
    assert len(web.requests) == 1


def test_a_tar_gz_that_the_server_calls_an_encoding_is_fetched(web: Loopback, tmp_path: Path) -> None:
    web.files["/a.tar.gz"] = make_tar(tmp_path / "a.tar.gz", FILES).read_bytes()
    web.script = [Answer(headers={"Content-Encoding": "gzip"})]
    checksum = hashlib.sha256(web.files["/a.tar.gz"]).hexdigest()
    assert fetched(web, web.source("/a.tar.gz", checksum)) == []


def test_a_chunked_answer_without_a_length_is_fetched(web: Loopback, archive: bytes) -> None:
    web.script = [Answer(headers={"Content-Length": None})]
    assert fetched(web) == []


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified", None])
def test_a_dropped_connection_is_continued(
    web: Loopback, archive: bytes, waits: list[float], validator: str | None
) -> None:
    names = {
        name: "Sat, 21 Nov 2026 00:00:00 GMT" if name == "Last-Modified" else '"v1"' for name in [validator] if name
    }
    headers = {"ETag": None} | names
    web.script = [Answer(headers=headers, cut=50_000), Answer(headers=headers, cut=30_000), Answer(headers=headers)]
    assert fetched(web) == []
    assert web.ranges == [None, "bytes=50000-", "bytes=80000-"] and waits == [1, 1]
    assert web.requests[2].headers["If-Range"] == names.get(validator or "")


def test_a_weak_etag_is_no_promise_of_the_same_bytes(web: Loopback, archive: bytes) -> None:
    web.script = [Answer(headers={"ETag": 'W/"v1"'}, cut=50_000)]
    assert fetched(web) == []
    assert web.requests[1].headers["If-Range"] is None


def test_a_server_that_cannot_continue_sends_all_again(web: Loopback, archive: bytes) -> None:
    web.script = [Answer(cut=50_000), Answer(ranges=False)]
    assert fetched(web) == [] and web.ranges == [None, "bytes=50000-"]


def test_a_file_that_changed_meanwhile_is_fetched_whole(web: Loopback, archive: bytes) -> None:
    web.script = [Answer(body=b"an older file" * 9_000, headers={"ETag": '"old"'}, cut=50_000)]
    assert fetched(web) == [] and web.requests[1].headers["If-Range"] == '"old"'


def test_a_server_that_continues_elsewhere_is_asked_for_all(web: Loopback, archive: bytes) -> None:
    elsewhere = {"Content-Range": f"bytes 0-{len(archive) - 1}/{len(archive)}"}
    web.script = [Answer(cut=50_000), Answer(status=206, headers=elsewhere)]
    assert fetched(web) == [] and web.ranges == [None, "bytes=50000-", None]


@pytest.mark.parametrize("kept", [70_000, None])
def test_what_a_killed_process_left_is_continued(web: Loopback, archive: bytes, kept: int | None) -> None:
    """Some of the file, or all of it but for its name."""
    web.script = [Answer(cut=10_000), Answer(status=404)]
    refused(web)
    part().write_bytes(archive[:kept])
    assert fetched(web) == []
    assert web.ranges[2] == f"bytes={kept or len(archive)}-" and len(web.requests) == 3
    assert not list(Path("work/downloads").glob("*.part*"))


def test_a_file_that_changed_after_a_kill_is_fetched_whole(web: Loopback, archive: bytes) -> None:
    """The next process knows the first one's validator, and does not append new bytes to old ones."""
    web.script = [Answer(body=b"an older file" * 9_000, headers={"ETag": '"old"'}, cut=50_000), Answer(status=404)]
    refused(web)
    assert fetched(web) == []
    assert web.ranges[2] == "bytes=50000-" and web.requests[2].headers["If-Range"] == '"old"'


def test_a_part_longer_than_the_file_is_thrown_away(web: Loopback, archive: bytes) -> None:
    web.script = [Answer(cut=10_000), Answer(status=404)]
    refused(web)
    part().write_bytes(archive + b"more")
    assert fetched(web) == [] and web.ranges[3] is None


def test_a_server_that_announces_too_much_is_given_up(web: Loopback, archive: bytes) -> None:
    web.script = [Answer(announced=len(archive) + 100, ranges=False)] * 99
    reason = refused(web)
    assert "100 more expected" in reason and "given up after 6 attempts without progress" in reason
    assert len(web.requests) == 6


def test_a_server_that_announced_too_much_is_believed_when_it_says_that_this_is_all(
    web: Loopback, archive: bytes
) -> None:
    web.script = [Answer(announced=len(archive) + 100)]
    assert fetched(web) == [] and web.ranges == [None, f"bytes={len(archive)}-"]


def test_a_server_that_announces_too_little_gives_a_broken_file(web: Loopback, archive: bytes) -> None:
    web.script = [Answer(announced=len(archive) - 100)]
    assert "cannot be read: File is not a zip file" in refused(web)
    assert fetched(web) == []


@pytest.mark.parametrize("as_date", [False, True])
def test_too_many_requests_waits_as_long_as_it_is_told(
    web: Loopback, archive: bytes, waits: list[float], as_date: bool
) -> None:
    wanted = formatdate(time.time() + 30, usegmt=True) if as_date else "30"
    web.script = [Answer(status=429, headers={"Retry-After": wanted})]
    assert fetched(web) == [] and len(waits) == 1 and 25 < waits[0] <= 30


def test_a_server_that_wants_hours_is_not_waited_for(web: Loopback, archive: bytes, waits: list[float]) -> None:
    web.script = [Answer(status=503, headers={"Retry-After": "7200"})]
    assert "requests a wait of 120 minutes" in refused(web) and waits == []


def test_a_pause_that_cannot_be_read_is_a_reason(web: Loopback, archive: bytes, waits: list[float]) -> None:
    web.script = [Answer(status=503, headers={"Retry-After": "soon"})]
    assert "Invalid Retry-After header: soon" in refused(web) and waits == []


def test_three_server_errors_are_waited_out_ever_longer(web: Loopback, archive: bytes, waits: list[float]) -> None:
    web.script = [Answer(status=500)] * 3
    assert fetched(web) == [] and waits == [1, 2, 4]


def test_a_server_that_never_recovers_is_given_up(web: Loopback, archive: bytes, waits: list[float]) -> None:
    web.script = [Answer(status=500)] * 99
    assert "the server answers 500 Internal Server Error; given up after 6 attempts" in refused(web)
    assert len(web.requests) == 6 and waits == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(web: Loopback, archive: bytes, waits: list[float], status: int) -> None:
    web.script = [Answer(status=status)]
    assert f"the server answers {status}" in refused(web) and waits == [] and len(web.requests) == 1


def test_a_wrong_file_of_the_right_length_is_deleted(web: Loopback, archive: bytes) -> None:
    good, bad = (hashlib.sha256(data).hexdigest() for data in (archive, archive[::-1]))
    web.script = [Answer(body=archive[::-1])]
    assert f"its SHA-256 is {bad}, not {good}" in refused(web, good)
    assert fetched(web, web.source("/a.zip", good)) == [] and len(web.requests) == 2


def test_a_wrong_file_without_a_checksum_is_skipped_and_deleted(web: Loopback, archive: bytes, tmp_path: Path) -> None:
    web.script = [Answer(body=archive[::-1])]
    (reason,) = fetched(web, web.source("/a.zip"), local(tmp_path / "served.zip"))
    assert "cannot be read" in reason
    assert not list(Path("work/downloads").glob("*.zip"))


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/zip"])
def test_a_web_page_is_not_taken_for_an_archive(web: Loopback, archive: bytes, kind: str) -> None:
    web.script = [Answer(body=b"\n<!DOCTYPE html><title>Quota exceeded</title>", headers={"Content-Type": kind})]
    reason = refused(web)
    assert "a click-through page or a quota notice" in reason and "sources: [{kind: local, path: <file>}]" in reason


def test_a_web_page_does_not_cost_what_is_already_there(web: Loopback, archive: bytes) -> None:
    page = Answer(body=b"<html>quota</html>", ranges=False, headers={"Content-Type": "text/html"})
    web.script = [Answer(cut=50_000), page]
    refused(web)
    assert part().read_bytes() == archive[:50_000]
    assert fetched(web) == [] and web.ranges[2] == "bytes=50000-"


def test_a_dead_port_is_given_up(web: Loopback, waits: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.zip"
    with pytest.raises(UserError, match=r"Connection refused.*given up after 6 attempts"):
        fetch_dataset(known({"kind": "url", "url": url}), "out")
    assert len(waits) == 5


def test_a_stalled_connection_is_dropped_and_continued(
    web: Loopback, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", (5, 0.2))
    web.script = [Answer(cut=50_000, stall=True)]
    assert fetched(web) == [] and web.ranges == [None, "bytes=50000-"]


def test_an_address_that_is_none_is_a_reason_too(web: Loopback) -> None:
    with pytest.raises(UserError, match="Exceeded 30 redirects"):
        web.files["/a.zip"] = b""
        web.script = [Answer(status=302, headers={"Location": "/a.zip"})] * 31
        fetch_dataset(known(web.source("/a.zip")), "out")


def test_two_at_once_fetch_one_file(web: Loopback, archive: bytes) -> None:
    threads = [
        threading.Thread(target=fetch_dataset, args=(known(web.source("/a.zip")), folder)) for folder in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_whole(Path("a"))
    assert_whole(Path("b"))
    assert len(web.requests) == 1


def test_too_little_room_is_told_before_anything_is_written(
    web: Loopback, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    assert "it needs 0 MiB" in refused(web) and not list(Path("work/downloads").glob("*.part"))


def test_a_full_disk_keeps_what_was_fetched(web: Loopback, archive: bytes) -> None:
    """A limit on the size of files stands for the disk's end."""
    code = (
        "from cmer.data.fetch import fetch_dataset; from cmer.config.datasets import PublishedDataset\n"
        f"options = {{'source': 'rsicd', 'sources': [{web.source('/a.zip')}]}}\n"
        "fetch_dataset(PublishedDataset.model_validate(options), 'out')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert run.returncode == 1 and "a.zip: File too large; free space there" in run.stderr
    assert part().stat().st_size == 60_000 and not Path("out").exists()
    assert fetched(web) == [] and web.ranges == [None, "bytes=60000-"]


@pytest.mark.parametrize(
    ("link", "file"),
    [
        ("https://drive.google.com/file/d/1NJY8-_6/view?usp=sharing", "1NJY8-_6"),
        ("https://drive.google.com/file/d/1NJY8/view", "1NJY8"),
        ("https://drive.google.com/open?id=1NJY8", "1NJY8"),
        ("https://drive.google.com/uc?export=download&id=1NJY8", "1NJY8"),
    ],
)
def test_links_to_share_files_of_google_drive_lead_to_the_file(link: str, file: str) -> None:
    assert download.direct(link) == f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t"


def test_other_addresses_are_taken_as_they_are() -> None:
    for link in ("https://drive.google.com/drive/folders/1NJY8", "https://example.org/file/d/1NJY8/view"):
        assert download.direct(link) == link
