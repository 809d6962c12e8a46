import re
import subprocess
import sys

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
    shown = re.findall(r"^│ (\w+) ", capsys.readouterr().out, re.M)
    assert shown == [*STAGES, "check", "params", "config", "schema", "show", "record", "controls"]


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
