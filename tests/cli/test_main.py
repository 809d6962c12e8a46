import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cmer.cli.main import STAGES, main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit status, or the message that stands for it."""
    monkeypatch.setattr(sys, "argv", ["cmer", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_help_shows_every_verb_in_the_workflows_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = re.findall(r"^│ (\w[\w-]*) ", capsys.readouterr().out, re.M)
    information = (
        *("check", "params", "config", "schema", "bench", "price", "plan"),
        *("show", "record", "controls", "t2t-ceiling", "backbones"),
        *("export", "index", "search", "export-archive", "serve"),
    )
    assert shown == [*(stage.replace("_", "-") for stage in STAGES), *information]


def test_a_users_mistake_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    message = run(monkeypatch, "prepare", "--spec", '{"source": "demo", "titel": "x"}', "--folder", "nowhere")
    assert isinstance(message, str)
    assert message.startswith("cmer: --spec is not valid")
    assert "'titel'" in message


def test_the_command_line_starts_without_heavy_imports() -> None:
    heavy = "{'torch', 'pandas', 'sklearn', 'PIL', 'transformers'}"
    script = f"import sys, cmer.cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- the end of the command line: real processes, whose streams break -------------------------------------------------

TABLE = Path(__file__).parents[2] / "docs/measured/rsicd_part/table2.csv"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which `cmer` is this one; stdout and stderr are captured."""
    function = f'cmer() {{ {shlex.quote(sys.executable)} -m cmer "$@"; }}; set -o pipefail; '
    done = subprocess.run(["bash", "-c", function + command], env=os.environ | environment, capture_output=True)
    streams = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, *streams)


@pytest.mark.parametrize("command", [f"show {TABLE}", "params --backbone ViT-B-32", "--help"])
def test_a_closed_pipe_ends_quietly(command: str) -> None:
    done = shell(f"cmer {command} | true")
    assert done.returncode == 1 and done.stdout == done.stderr == ""


@pytest.mark.parametrize("command", [f"show {TABLE}", "params --list", "--help"])
def test_a_full_output_is_a_sentence(command: str) -> None:
    done = shell(f"cmer {command} > /dev/full")
    assert (done.returncode, done.stderr) == (1, "cmer: the output: No space left on device\n")


@pytest.mark.parametrize("streams", ["2> /dev/full", "2>&-", "> /dev/full 2>&1", ">&- 2>&-"])
def test_an_error_without_a_place_to_go_is_its_status(streams: str) -> None:
    done = shell(f"cmer show missing.csv {streams}")
    assert done.returncode == 1 and done.stdout == done.stderr == ""


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-"])
def test_what_is_written_to_files_needs_no_output(tmp_path: Path, streams: str) -> None:
    images = '{"source": "demo", "images_per_class": 5, "size": 32}'
    folder = shlex.quote(str(tmp_path))
    done = shell(f"cmer draw --spec '{images}' --folder {folder} --record {folder}/record.json {streams}")
    assert done.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"images.tar", "dataset.json", "record.json"}
    assert set(json.loads((tmp_path / "record.json").read_text())["outputs"]) == {
        f"{tmp_path}/images.tar", f"{tmp_path}/dataset.json"
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "cp1252"])
def test_characters_that_a_terminal_lacks_are_replaced(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "é 码头.csv").write_text("method,run\nprobe 🌊,å\n")
    done = shell(f"cmer show {shlex.quote(str(tmp_path))}/*.csv", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and done.stderr == "" and "probe ?" in done.stdout


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.json", b"{}", "is not a .csv"),
        ("x.bin", b"\0\1", "is not a .csv"),
        ("x.csv", None, "does not exist"),
    ],
)
def test_show_of_anything_is_a_table_or_a_sentence(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = shell(f"cmer show {shlex.quote(str(tmp_path / name))}")
    assert done.returncode == 1 and re.fullmatch(rf"cmer: .*{name}.*{sentence}.*\n", done.stderr), done.stderr


def test_a_spec_in_a_file_is_that_on_the_command_line(tmp_path: Path) -> None:
    """As the workflow passes one that is too long for a command line; records contain it either way."""
    rows = [f'"{number}": "x"' for number in range(20_000)]
    spec = f'{{"source": "demo", "images_per_class": 5, "size": 32, "merge": {{{", ".join(rows)}}}}}'
    (tmp_path / "spec.json").write_text(spec)
    done = shell(f"cd {shlex.quote(str(tmp_path))}; cmer draw --spec @spec.json --folder a --record r.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["command"][2:4] == ["--spec", spec]
    done = shell(f"cd {shlex.quote(str(tmp_path))}; cmer draw --spec @missing.json --folder a")
    assert (done.returncode, done.stderr) == (1, "cmer: missing.json does not exist\n")


@pytest.mark.parametrize("width", ["²", "x", "-5", "100000000", "٣"])
def test_a_width_that_no_terminal_has_is_ignored(width: str) -> None:
    for command in (f"show {TABLE}", "split --help"):
        done = shell(f"cmer {command}", COLUMNS=width, LINES=width)
        assert done.returncode == 0 and done.stderr == "" and len(done.stdout) < 100_000


def test_an_argument_that_is_not_utf_8_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    done = shell(f"cd {shlex.quote(str(tmp_path))}; cmer schema --out $'x\\xff.json'")
    assert done.returncode == 1 and "'x\\udcff.json' is not UTF-8" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_message_contains_no_control_characters(tmp_path: Path) -> None:
    done = shell(f"cd {shlex.quote(str(tmp_path))}; cmer show $'\\e]0;title\\a.csv'")
    assert done.returncode == 1 and "does not exist" in done.stderr and "\x1b" not in done.stderr + done.stdout
