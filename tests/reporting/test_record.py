"""`cmer record`: what a file and the log of its making say."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmer.cli.main import app
from cmer.errors import UserError
from cmer.io import write_json, write_text
from cmer.provenance import recorded
from cmer.reporting.record import provenance
from cmer.training.checkpoint import save

MADE = {"spec": {"run": "tiny.cmer", "dataset": "demo", "seed": 7}, "code": "c0de", "versions": {"torch": "2.13.0"}}
LOG = "logs/results/x/step.record.json"


@contextmanager
def call(log: str, *command: str) -> Iterator[None]:
    """A call of this command, whose record goes to `log`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", list(command))
        with recorded(log):
            yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a call wrote one file of every kind, and its record."""
    monkeypatch.chdir(tmp_path)
    spec = '{"run": "tiny.cmer", "seed": 7}'
    with call(LOG, "/somewhere/bin/cmer", "train", "--spec", spec, "--out", "it's"):
        save("results/x/checkpoint.safetensors", {}, MADE)
        write_json("results/x/metrics.json", {"protocols": {}, "record": MADE})
        made = {"spec": {"dataset": {"source": "demo"}, "backbone": {"kind": "tiny"}}, "record": {"code": "c0de"}}
        write_json("results/x/features.json", made)
        write_json("results/x/efficiency.json", {"rows": [], "code": "c0de", "versions": {"torch": "2.13.0"}})
        write_text("results/x/table.csv", "a,b\n")
    return tmp_path


def record(path: str) -> str:
    result = CliRunner().invoke(app, ["record", path], env={"COLUMNS": "80"}, catch_exceptions=False)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    return result.output


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "metrics.json", "efficiency.json", "table.csv"])
def test_every_kind_of_file_tells_all(project: Path, name: str) -> None:
    log = json.loads((project / LOG).read_text())
    text = record(f"results/x/{name}")
    lines = {word: rest.strip() for word, _, rest in (line.strip().partition(" ") for line in text.splitlines())}
    assert lines["seed"] == "7"
    assert "run: tiny.cmer" in text
    assert lines["host"] == log["host"] and lines["commit"] == log["commit"]
    assert lines["time"].startswith(log["started"])
    assert lines["command"] == "cmer train --spec SPEC --out 'it'\"'\"'s'"
    assert lines["record"].endswith(LOG)
    assert "torch 2.13.0" in " ".join(text.split())


def test_features_tell_their_dataset_and_backbone(project: Path) -> None:
    text = record("results/x/features.json")
    assert "source: demo" in text and "kind: tiny" in text


def test_a_file_without_a_record_has_that_of_its_call(project: Path) -> None:
    with call("logs/evaluate.record.json", "cmer", "evaluate"):
        write_json("results/x/mr.json", {"mr": {}})
        later = {"evaluation": {"code": "0ther", "versions": {"torch": "2.14.0"}}}
        write_json("results/x/metrics.json", {"record": MADE | later})
    text = record("results/x/mr.json")
    assert "seed        7" in text and "code        c0de" in text
    assert "evaluation  code 0ther, torch 2.14.0" in text
    write_json("results/x/metrics.json", {"record": MADE | {"code": "1ater"}})  # by a call that is not in the log
    assert "c0de" not in (text := record("results/x/mr.json")) and "1ater" not in text


def test_a_table_tells_all_its_seeds(project: Path) -> None:
    with call("logs/table.record.json", "cmer", "table", "--spec", '{"kind": "table1", "seeds": [1, 2]}'):
        write_text("results/x/table1.csv", "a\n")
    assert "seed      1, 2" in record("results/x/table1.csv")


def test_the_commit_is_that_of_the_start_and_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout.strip()

    def commit_of(during: Callable[[], object]) -> str:
        with recorded("record.json"):
            during()
        return str(json.loads(Path("record.json").read_text())["commit"])

    monkeypatch.chdir(tmp_path)
    package = tmp_path / "package"
    package.mkdir()
    (package / "provenance.py").write_text("")
    monkeypatch.setattr("cmer.provenance.PACKAGE", package)
    assert commit_of(lambda: None) == "unknown"
    git("init", "--quiet")
    assert commit_of(lambda: None) == "unknown"
    git("add", "package")
    git("commit", "--quiet", "--message=first")
    first = git("rev-parse", "HEAD")
    assert commit_of(lambda: git("commit", "--allow-empty", "--quiet", "--message=second")) == first
    (package / "new.py").write_text("")
    assert commit_of(lambda: None) == git("rev-parse", "HEAD") + "-dirty"


def test_a_pulled_checkpoint_tells_what_it_holds(project: Path) -> None:
    shutil.rmtree(project / "logs")
    text = " ".join(record("results/x/checkpoint.safetensors").split())
    assert "seed 7" in text and "torch 2.13.0" in text
    assert "commit unknown: logs/ has no record of the command" in text


def test_the_seed_of_a_call_without_a_spec_is_told(project: Path) -> None:
    with call("logs/split.record.json", "cmer", "split", "--seed", "2022"):
        write_text("results/x/validation.csv", "image_id\n")
    assert "seed      2022" in record("results/x/validation.csv")


def test_a_changed_file_is_called_changed(project: Path) -> None:
    assert "changed" not in record("results/x/table.csv")
    Path("results/x/table.csv").write_text("a,c\n")
    assert "changed since" in " ".join(record("results/x/table.csv").split())


def test_the_last_of_several_calls_counts(project: Path) -> None:
    later = json.loads((project / LOG).read_text()) | {"started": "2999-01-01T00:00:00Z"}
    write_json("logs/a.record.json", later)
    assert provenance(Path("results/x/table.csv")).call["started"] == "2999-01-01T00:00:00Z"


def test_a_record_beside_a_file_that_moved_is_its_own(project: Path) -> None:
    (project / "kept").mkdir()
    shutil.copy("results/x/table.csv", "kept/table.csv")
    shutil.copy(LOG, "kept/table.record.json")
    assert provenance(Path("kept/table.csv")).log == Path("kept/table.record.json")


WHOLE = {
    **{"command": ["cmer"], "commit": "c", "host": "h", "started": "2999", "seconds": 1.5, "peak_memory_mib": 1},
    **{"outputs": {"results/x/table.csv": "0"}, "versions": {}},
}


@pytest.mark.parametrize(
    "damaged",
    [
        *(b"", b"{", b"\xff", b"[]", b"null", b"{}", b"[" * 100_000),
        *(
            json.dumps({name: value for name, value in WHOLE.items() if name != lost}).encode()
            for lost in WHOLE
            if lost != "versions"
        ),
        *(json.dumps(WHOLE | {name: wrong}).encode() for name in WHOLE for wrong in (None, [1], {"a": 1})),
        json.dumps(WHOLE | {"outputs": {"a\0b": "0"}}).encode(),
    ],
    ids=range(7 + 7 + 24 + 1),
)
def test_a_damaged_record_hides_no_other(project: Path, capsys: pytest.CaptureFixture[str], damaged: bytes) -> None:
    (project / "logs/damaged.record.json").write_bytes(damaged)
    assert provenance(Path("results/x/table.csv")).log == Path(LOG).absolute()
    assert "skipped a damaged record: " in (told := capsys.readouterr().err) and "logs/damaged.record.json" in told


def test_a_record_that_is_a_pipe_or_a_folder_hides_no_other(project: Path) -> None:
    os.mkfifo(project / "logs/pipe.record.json")
    (project / "logs/folder.record.json").mkdir()
    (project / "results/x/table.record.json").mkdir()
    assert provenance(Path("results/x/table.csv")).log == Path(LOG).absolute()


@pytest.mark.parametrize(
    "made",
    [{"spec": [1]}, {"spec": "x"}, {"code": 1}, {"versions": []}, {"versions": {"torch": 2}}, {"embedding": "x"}],
)
def test_a_damaged_record_of_the_files_own_is_a_sentence(project: Path, made: dict[str, object]) -> None:
    write_json("results/x/metrics.json", {"record": made})
    save("results/x/checkpoint.safetensors", {}, made)
    for name in ("metrics.json", "checkpoint.safetensors"):
        with pytest.raises(UserError, match=f"the record in results/x/{name} is not valid:\n  - "):
            provenance(Path("results/x", name))


@pytest.mark.parametrize("command", [["cmer", "--spec"], ["cmer", "--spec", "[1]"], ["cmer", "--spec", '{"seeds": 3}']])
def test_an_unusual_command_line_is_shown(project: Path, command: list[str]) -> None:
    write_json("logs/odd.record.json", WHOLE | {"command": command})
    assert "cmer" in record("results/x/table.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"hello", "contains no record"),
        ("list.json", b"[1]", "contains no record"),
        ("other.json", b'{"a": 1}', "contains no record"),
        ("broken.json", b"{", "not valid JSON"),
        ("broken.safetensors", b"nonsense", "is damaged"),
        ("absent.csv", None, "does not exist or is not a file"),
    ],
)
def test_a_foreign_file_is_a_sentence(project: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*{message}"):
        provenance(Path(name))
