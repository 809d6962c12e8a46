import importlib
import sys
from pathlib import Path

import pytest

from cmer import registry as module
from cmer.registry import BACKBONE_OPTIONS, FIGURES, LOSSES, METHOD_OPTIONS, TABLES, Registry


def test_names_are_found_without_import() -> None:
    before = set(sys.modules)
    names = Registry("method", "cmer.methods", "options").names()
    assert {"cmer", "linear_probe", "zero_shot"} <= set(names)
    assert not {"base", "layers", "build"} & set(names)
    assert set(sys.modules) - before <= {"cmer", "cmer.methods"}
    assert TABLES.names() == ["differences", *(f"table{number}" for number in range(1, 7))]
    assert {"contrastive"} <= set(LOSSES.names()) and {"accuracy_cost"} <= set(FIGURES.names())


def test_registered_class_is_got() -> None:
    registry: Registry[object] = Registry("thing", "cmer.scenes")
    thing = registry.register("thing")(type("Thing", (), {}))
    assert registry.get("thing") is thing
    assert "thing" in registry.names()


def test_a_second_class_of_one_name_is_refused() -> None:
    registry: Registry[object] = Registry("thing", "cmer.scenes")
    registry.register("thing")(type("Thing", (), {}))
    with pytest.raises(ValueError, match="thing 'thing' is registered twice"):
        registry.register("thing")(type("Other", (), {}))


@pytest.mark.parametrize("registry", [METHOD_OPTIONS, BACKBONE_OPTIONS, LOSSES, TABLES, FIGURES])
def test_an_unknown_name_lists_the_known_ones(registry: Registry[object]) -> None:
    with pytest.raises(ValueError, match=f"unknown {registry.kind} 'nothing'; known are {', '.join(registry.names())}"):
        registry.get("nothing")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pretend that a package with entry points is installed."""

    def install(group: str, **entries: str) -> None:
        info = tmp_path / "things-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: things\nVersion: 1.0\n")
        lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        module._entry_points.cache_clear()

    yield install
    module._entry_points.cache_clear()


def test_an_installed_package_adds_entries(installed, tmp_path: Path) -> None:
    (tmp_path / "more_losses.py").write_text(
        "from cmer.registry import LOSSES\n\n\n@LOSSES.register('outer')\ndef outer():\n    return 7\n"
    )
    installed("cmer.losses.batch", outer="more_losses")
    assert "outer" in LOSSES.names() and LOSSES.module("outer") == "more_losses"
    assert LOSSES.get("outer")() == 7


def test_an_entry_point_with_a_name_of_cmer_is_refused(installed) -> None:
    installed("cmer.losses.batch", contrastive="elsewhere")
    with pytest.raises(ValueError, match="loss 'contrastive' is in cmer and in the entry points of another package"):
        LOSSES.names()


def test_a_module_that_registers_something_else_is_named(installed, tmp_path: Path) -> None:
    (tmp_path / "empty_loss.py").write_text("")
    installed("cmer.losses.batch", hollow="empty_loss")
    with pytest.raises(ValueError, match="module empty_loss registers no loss 'hollow'"):
        LOSSES.get("hollow")
