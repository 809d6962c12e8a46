"""Snakemake's records of an experiment's outputs, as a file that travels with its results.

    python scripts/metadata.py save EXPERIMENT      .snakemake/metadata → snakemake.jsonl among its results
    python scripts/metadata.py restore EXPERIMENT   the other way round

Snakemake keeps a record per output: parameters, digest of the code, checksums of the inputs. Without it, every step
would run again after a pull. The records of all experiments lie in one folder, which cannot be an output of several
DVC stages.
"""

from __future__ import annotations

import json
import os
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import yaml

METADATA = Path(".snakemake/metadata")


def results(experiment: str) -> Path:
    """Folder of an experiment's results."""
    return Path("results") if experiment == "demo" else Path("results", experiment)


def tracked(experiment: str) -> list[Path]:
    """Outputs of the experiment's stage in dvc.yaml.

    Raises:
        SystemExit: there is no such stage.
    """
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    if experiment in stages["experiment"]["foreach"]:
        stage = stages["experiment"]["do"]
    elif experiment == "demo":
        stage = stages["demo"]
    else:
        sys.exit(f"dvc.yaml has no experiment {experiment!r}: demo, {', '.join(stages['experiment']['foreach'])}")
    return [Path(name.replace("${item}", experiment)) for out in stage["outs"] for name in out]


def record_file(output: str) -> Path:
    """Where Snakemake keeps the record of an output: its path in base64, cut where file names are limited."""
    limit = (os.pathconf(METADATA, "PC_NAME_MAX") or 255) - 1
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[start : start + limit] for start in range(0, len(name), limit)]
    return METADATA.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def records() -> Iterator[tuple[str, Path]]:
    """Every output that Snakemake has a record of, and the record's file."""
    for file in METADATA.rglob("*"):
        if file.is_file():
            name = "".join(part.removeprefix("@") for part in file.relative_to(METADATA).parts)
            yield urlsafe_b64decode(name).decode(), file


def save(experiment: str) -> None:
    """Write the records of the outputs that exist and that the experiment's stage tracks."""
    outs = tracked(experiment)
    lines = [
        json.dumps({"output": output, "record": json.loads(file.read_text(encoding="utf-8"))}, sort_keys=True)
        for output, file in sorted(records())
        if Path(output).is_file() and any(Path(output).is_relative_to(out) for out in outs)
    ]
    target = results(experiment) / "snakemake.jsonl"
    temporary = target.with_name(f".{target.name}")
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    temporary.replace(target)


def restore(experiment: str) -> None:
    """Give Snakemake the saved records; those of other outputs stay."""
    tracked(experiment)
    METADATA.mkdir(parents=True, exist_ok=True)
    for line in (results(experiment) / "snakemake.jsonl").read_text(encoding="utf-8").splitlines():
        saved = json.loads(line)
        file = record_file(saved["output"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(saved["record"]), encoding="utf-8")


if __name__ == "__main__":
    commands = {"save": save, "restore": restore}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](sys.argv[2])
