import ast
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cmer import provenance, retrieval, training
from cmer.errors import UserError
from cmer.provenance import code_digest, stored_record


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `cmer` of three modules: one imports two, of which one is a registry."""
    sources = {
        "__init__.py": "",
        "one.py": "from cmer.two import f\nfrom cmer.registry import R\n\n\ndef g():\n    return f()\n",
        "two.py": "def f():\n    return 1\n",
        "three.py": "x = 1\n",
        "registry.py": "R = 1\n",
    }
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    provenance._source.cache_clear()
    yield tmp_path
    provenance._source.cache_clear()


def after(package: Path, name: str, text: str) -> str:
    (package / name).write_text(text)
    provenance._source.cache_clear()
    return code_digest("cmer.one")


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("two.py", "def f():\n    return 2\n", True),
        ("two.py", '"""What it is."""\n\n\ndef f():  # why\n    """One."""\n    return (1)\n', False),
        ("three.py", "x = 2\n", False),
        ("four.py", "x = 2\n", False),
        ("registry.py", "R = 2\n", False),
    ],
)
def test_digest_counts_what_is_executed(package: Path, name: str, text: str, counts: bool) -> None:
    before = code_digest("cmer.one")
    assert (after(package, name, text) != before) == counts


def test_a_training_does_not_depend_on_the_code_of_the_test_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    source = provenance._source
    read: set[str] = set()
    monkeypatch.setattr(provenance, "_source", lambda module: read.add(module) or source(module))
    code_digest(*training.MODULES)
    assert {"cmer.training.loop", "cmer.training.checkpoint", "cmer.retrieval.embed"} < read
    assert not read & {"cmer.data.prompts", "cmer.training.embedding"}
    code_digest(*retrieval.MODULES)
    assert {"cmer.data.prompts", "cmer.retrieval.embed", "cmer.training.checkpoint"} < read


def test_digest_of_a_module_that_is_not_there(package: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"cmer\.five"):
        code_digest("cmer.one", "cmer.five")


def test_the_version_of_python_does_not_count() -> None:
    """Later versions add fields to the nodes of a function: empty here, and absent before."""
    (function,) = ast.parse("def f(x):\n    return x\n").body
    plain = provenance._text(function)
    function.type_params = []  # type: ignore[attr-defined]
    function._fields = (*function._fields, "later")
    function.later = None  # type: ignore[attr-defined]
    assert provenance._text(function) == plain
    assert plain != provenance._text(ast.parse("def f(x):\n    return y\n").body[0])


@pytest.mark.parametrize("text", ["[]", "1", "null", "{}", '{"file_sha256": 1}', "[" * 100_000, '{"a": 1, "a": 2}'])
def test_a_record_that_is_none_is_a_sentence(tmp_path: Path, text: str) -> None:
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "x.safetensors", metadata={"record": text})
    with pytest.raises(UserError, match=r"x\.safetensors is damaged"):
        stored_record(tmp_path / "x.safetensors")
