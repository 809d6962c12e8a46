"""A small published dataset in all the forms in which copies come, and a web server that misbehaves as it is told."""

import io
import json
import socket
import tarfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmer.config.datasets import PublishedDataset
from cmer.data.fetch import copies
from cmer.data.fingerprint import Match

RNG = np.random.default_rng(0)
SPLITS = {
    "00001.jpg": "train", "airport_1.jpg": "train", "airport_10.jpg": "test", "airport_2.jpg": "val",
    "pond_1.jpg": "test",
}  # fmt: skip
IMAGES = {name: RNG.bytes(int(RNG.integers(9_000, 90_000))) for name in SPLITS}
CAPTIONS = {name: [f"a view of {name} .", "äöü"] for name in SPLITS}
LISTS = {"bridge.txt": "00001.jpg\n", "airport.txt": "airport_1.jpg\nairport_10.jpg\nairport_2.jpg\n"}
PREFIXES = {name: name.split("_")[0] if "_" in name else "" for name in SPLITS}
Files = dict[str, bytes]
AS_PUBLISHED = (
    "from cmer.data.fetch import copies; from cmer.data.fingerprint import Match; "
    "copies.compare = lambda *_: [Match('classes', '', '')]\n"
)
"""Code that lets any copy pass for the published dataset in another process, as `pass_for_published` does in this."""


def annotations(**more: Any) -> bytes:
    images = [
        {
            "filename": name,
            "split": split,
            "imgid": 7,
            "sentences": [{"raw": raw, "tokens": []} for raw in CAPTIONS[name]],
        }
        for name, split in SPLITS.items()
    ]
    return json.dumps({"images": images, "dataset": "x", **more}).encode()


def layout(root: str = "RSICD/", name: str = "dataset_rsicd.json", lists: bool = True) -> Files:
    """The files of a copy, the images in an order of their own."""
    files = {f"{root}some_pictures/{name}": IMAGES[name] for name in reversed(IMAGES)} | {
        f"{root}{name}": annotations()
    }
    if lists:
        files |= {f"{root}txtclasses_rsicd/{name}": text.encode() for name, text in LISTS.items()}
    return files


def make_folder(path: Path, files: Files) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def make_zip(path: Path, files: Mapping[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def make_tar(path: Path, files: Files, *more: tarfile.TarInfo) -> Path:
    """A tar, compressed as the suffix of `path` says, with `more` members without content."""
    with tarfile.open(path, "w:" + path.suffix.removeprefix(".").replace("tar", "").replace("tgz", "gz")) as tar:
        for info in more:
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_parquet(folder: Path) -> list[Path]:
    """One file a split, called as on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, called in (("train", "train"), ("val", "valid"), ("test", "test")):
        rows = [
            {
                "filename": f"rsicd_images/{name}",
                "captions": CAPTIONS[name],
                "image": {"bytes": IMAGES[name], "path": f"rsicd_images/{name}"},
            }
            for name in SPLITS
            if SPLITS[name] == split
        ]
        paths.append(folder / f"{called}-00000-of-00001.parquet")
        pq.write_table(pa.Table.from_pylist(rows), paths[-1])
    return paths


def known(*sources: Mapping[str, Any], name: str = "rsicd") -> PublishedDataset:
    return PublishedDataset.model_validate({"source": name, "sources": list(sources)})


def local(path: Path | str) -> dict[str, str]:
    return {"kind": "local", "path": str(path)}


def tar_of(images: Mapping[str, bytes]) -> bytes:
    """The expected images.tar, by Python's own writer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in images.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def described(labels: Mapping[str, str], dataset: str = "rsicd") -> dict[str, Any]:
    """The expected dataset.json."""
    images = []
    for name, split in SPLITS.items():
        image = {"filename": name, "split": split, "sentences": [{"raw": raw} for raw in CAPTIONS[name]]}
        images.append(image | ({"label": labels[name]} if labels[name] else {}))
    return {"dataset": dataset, "images": images}


def assert_whole(folder: Path, labels: Mapping[str, str] = PREFIXES, dataset: str = "rsicd") -> None:
    """The folder holds all of the dataset, and nothing else."""
    assert (folder / "images.tar").read_bytes() == tar_of(IMAGES)
    assert json.loads((folder / "dataset.json").read_text()) == described(labels, dataset)
    assert {path.name for path in folder.iterdir()} == {"images.tar", "dataset.json"}


# --- a web server -----------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """How a request is answered: by default as a good server would.

    Attributes:
        headers: beside or instead of the usual ones; None leaves one out.
        body: instead of the file.
        ranges: whether `Range` is heeded.
        announced: Content-Length, if not the true one.
        cut: bytes of the body after which the connection drops.
        stall: whether it is held open then, in silence.
    """

    status: int = 200
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    ranges: bool = True
    announced: int | None = None
    cut: int | None = None
    stall: bool = False


class Loopback:
    """Serves `files` (path → bytes); the first requests are answered as `script` says."""

    def __init__(self) -> None:
        self.files: Files = {}
        self.script: list[Answer] = []
        self.requests: list[SimpleNamespace] = []
        self.done = threading.Event()
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                loopback.answer(self)

            do_HEAD = do_GET

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *arguments: None  # clients may hang up
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.done.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def source(self, path: str, sha256: str | None = None) -> dict[str, Any]:
        return {"kind": "url", "url": self.url + path, "sha256": sha256}

    @property
    def ranges(self) -> list[str | None]:
        """What part of the file each request asked for."""
        return [request.headers["Range"] for request in self.requests]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(SimpleNamespace(command=handler.command, path=handler.path, headers=handler.headers))
        answer = self.script.pop(0) if self.script else Answer()
        body = self.files.get(handler.path) if answer.body is None else answer.body
        if body is None:
            answer, body = Answer(status=404), b"no such file"
        headers = {"ETag": f'"{hash(body)}"', "Content-Type": "application/octet-stream"} | dict(answer.headers)
        status, wanted = answer.status, handler.headers["Range"]
        same = handler.headers["If-Range"] in (None, headers["ETag"], headers.get("Last-Modified"))
        if status == 200 and wanted and answer.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(body) else 416
            place = f"{start}-{len(body) - 1}" if start < len(body) else "*"
            headers["Content-Range"] = f"bytes {place}/{len(body)}"
            body = body[start:]
        headers.setdefault("Content-Length", str(len(body) if answer.announced is None else answer.announced))
        self._send(handler, answer, status, headers, body)

    def _send(
        self, handler: BaseHTTPRequestHandler, answer: Answer, status: int, headers: Mapping[str, Any], body: bytes
    ) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body[: answer.cut])
            handler.wfile.flush()
        if answer.stall:
            self.done.wait()
        if answer.cut is not None or answer.announced is not None or headers.get("Content-Length") is None:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)


def pass_for_published(patch: pytest.MonkeyPatch) -> None:
    """Let any copy pass for the published dataset."""
    patch.setattr(copies, "compare", lambda *_: [Match("classes", "", "")])
