"""A minimal config, and the project's own."""

import copy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
OTHERS = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "datasets": {"demo": {"source": "demo"}},
    "backbones": {"tiny": {"kind": "tiny"}},
    "run_defaults": {"datasets": ["demo"], "backbones": ["tiny"]},
    "runs": {"cmer": {"method": "cmer"}},
    "tables": {"table1": {"datasets": ["demo"], "runs": ["tiny.cmer"]}},
}


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    data = copy.deepcopy(MINIMAL)
    inner: Any = data
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = to
    return data


def read(name: str | None) -> dict[str, Any]:
    file = ROOT / "config" / name if name else ROOT / "config.yaml"
    config: dict[str, Any] = yaml.safe_load(file.read_text())
    return config
