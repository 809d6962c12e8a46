import sys

import pytest

from cmer.registry import BACKBONES, METHODS, Registry


def test_names_are_found_without_import() -> None:
    before = set(sys.modules)
    names = Registry("method", "cmer.methods").names()
    assert {"cmer", "linear_probe", "zero_shot"} <= set(names)
    assert "base" not in names
    assert set(sys.modules) - before <= {"cmer"}


def test_registered_class_is_got() -> None:
    registry: Registry[object] = Registry("thing", "cmer.cli")
    thing = registry.register("thing")(type("Thing", (), {}))
    assert registry.get("thing") is thing
    assert "thing" in registry.names()


def test_a_second_class_of_one_name_is_refused() -> None:
    registry: Registry[object] = Registry("thing", "cmer.cli")
    registry.register("thing")(type("Thing", (), {}))
    with pytest.raises(ValueError, match="thing 'thing' is registered twice"):
        registry.register("thing")(type("Other", (), {}))


@pytest.mark.parametrize("registry", [METHODS, BACKBONES])
def test_an_unknown_name_lists_the_known_ones(registry: Registry[object]) -> None:
    with pytest.raises(ValueError, match=f"unknown {registry.kind} 'nothing'; known are {', '.join(registry.names())}"):
        registry.get("nothing")
