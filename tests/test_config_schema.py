"""The schema that editors use."""

import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from config_cases import MINIMAL, OTHERS, ROOT, changed, read

from cmer.config.schema import config_schema
from cmer.registry import METHOD_OPTIONS


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "config/schema.json").read_text())
    return found


def test_the_committed_schema_is_the_models(schema: dict[str, Any]) -> None:
    code = "import json; from cmer.config.schema import config_schema; print(json.dumps(config_schema()))"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(made) == schema, "run `cmer schema` and commit config/schema.json"


@pytest.mark.parametrize("name", [None, *OTHERS])
def test_every_config_names_the_schema_and_is_valid_by_it(schema: dict[str, Any], name: str | None) -> None:
    file = ROOT / "config" / name if name else ROOT / "config.yaml"
    path = "schema.json" if name else "config/schema.json"
    assert file.read_text().startswith(f"# yaml-language-server: $schema={path}\n")
    jsonschema.validate(read(name), schema)


@pytest.mark.parametrize(
    "data",
    [
        changed("training", to={"epoch": 3}),
        changed("runs", "cmer", "options", to={"hidde": 3}),
        changed("runs", "cmer", "training", to={"lr": -1}),
        changed("runs", "cmer", "method", to="cmerr"),
        changed("backbones", "tiny", "kind", to="vit"),
        changed("backbones", "tiny", "size", to=224),
        changed("datasets", "demo", "sixe", to=224),
    ],
)
def test_the_schema_sees_mistakes(schema: dict[str, Any], data: dict[str, Any]) -> None:
    jsonschema.validate(MINIMAL, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema)


def test_the_schema_describes_the_settings_of_every_method() -> None:
    definitions = config_schema()["$defs"]
    for name in METHOD_OPTIONS.names():
        model = METHOD_OPTIONS.get(name)
        assert set(definitions[model.__name__]["properties"]) == set(model.model_fields)
