"""What the commands of archives refuse, and a process that is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lancedb
import pytest
from archive_cases import squares
from typer.testing import CliRunner

from cmer.archive.store import Archive
from cmer.cli.archive import _located, app
from cmer.errors import UserError

CASES = Path(__file__).parent
SLOW = """
import sys, time
sys.path.insert(0, {cases!r})
from pathlib import Path
from archive_cases import Colours
from cmer.archive import index as indexing
indexing.ENCODED_AT_ONCE = 4
indexing.ROWS_PER_COMMIT = 8
class Slow(Colours):
    def encode_images(self, images):
        time.sleep({pause})
        return super().encode_images(images)
print(indexing.index(Path("images"), Path("a.lance"), Slow(), "colours"))
"""


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("search", "none.lance", "red"), "is not an archive; `cmer index FOLDER"),
        (("serve", "none.lance"), "is not an archive"),
        (("serve", "a.lance", "--host", "0.0.0.0"), "give --token as well"),
        (("serve", "a.lance", "--token", "short"), "at least 16 ASCII characters"),
        (("export-archive", "none.lance", "--out", "x.parquet"), "is not an archive"),
        (("index", ".", "--run", "x", "--store", "a", "--tile", "64", "--overlap", "60"), "at most half of tile"),
        (("index", ".", "--run", "x", "--store", "a", "--bands", "a,b"), "is not three numbers"),
        (("index", ".", "--run", "x", "--store", "a", "--bands", "1,2"), "bands"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(tmp_path: Path, monkeypatch, arguments, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        call(*arguments)
    assert not list(tmp_path.iterdir())


def test_a_model_is_known_by_its_name_beside_a_folder_of_that_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rsicd_lite_cmer").mkdir()
    Path("run.safetensors").touch()
    assert _located("rsicd_lite_cmer") == "rsicd_lite_cmer"
    assert _located("run.safetensors") == str(tmp_path / "run.safetensors")


def test_a_missing_extra_is_a_sentence(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "archive.json").touch()
    monkeypatch.setitem(sys.modules, "lancedb", None)
    settings = dict.fromkeys(("folder", "source", "model", "digest"), "x") | {"dim": 4}
    monkeypatch.setattr("cmer.archive.places.read_sealed", lambda *_: settings)
    with pytest.raises(UserError, match=r"pip install 'cmer\[archive\]'"):
        Archive.open(tmp_path)


def test_a_killed_index_is_resumed_with_nothing_lost_or_doubled(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    squares(tmp_path / "images", 20)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    script = SLOW.format(cases=str(CASES), pause=0.2)
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not rows(tmp_path / "a.lance") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = rows(tmp_path / "a.lance")
    assert 0 < kept < 60
    done = subprocess.run(
        [sys.executable, "-c", SLOW.format(cases=str(CASES), pause=0)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{60 - kept} embedded, 0 removed, {kept} unchanged\n"
    files = Archive.open(tmp_path / "a.lance").read(["file"]).read_all()["file"].to_pylist()
    assert sorted(files) == sorted(path.relative_to("images").as_posix() for path in Path("images").glob("*/*"))


def rows(store: Path) -> int:
    """Rows that are on disk, read by another process than the writer."""
    try:
        return lancedb.connect(store).open_table("images").count_rows()
    except (ValueError, OSError, RuntimeError):
        return 0
