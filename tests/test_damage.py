"""Damaged files between steps: a command that reads one says so, or gives the same result as before.

`CMER_DAMAGE_EXAMPLES` sets the number of examples per kind of file; the default is small.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cmer.cli.main import app
from cmer.config.base import validate
from cmer.config.runs import RunSpec
from cmer.errors import UserError
from cmer.features.extract import extract_dataset
from cmer.features.sink import Sink
from cmer.features.store import FeatureSpec
from cmer.training.assembly import RunFiles
from cmer.training.loop import Trainer
from cmer.training.run import train_run

EXAMPLES = int(os.environ.get("CMER_DAMAGE_EXAMPLES", "6"))
BACKBONE = {"kind": "tiny", "printed": "tiny"}
DATA = "--folder data --captions prompts.csv"
RUN = f"{DATA} --validation validation.csv --features features.json"
FEATURES = f"features {DATA} --queries queries.csv --out features.json --spec"
EMBED = f"embed {RUN} --queries queries.csv --template {{label}}.{{caption}} --out o.safetensors --checkpoint"
EVALUATE = (
    "evaluate --folder data --queries queries.csv --out o.json --ranks o.csv --shown s.json --mr q.json --embeddings"
)
PROFILE = "profile --backbone tiny --method cmer --batch 2 --batch 3 --steps 1 --rounds 1 --out profile.json"


@dataclass(frozen=True)
class Reader:
    """A command that reads a file, and whether the file's content is sealed.

    Another valid text in a CSV is another dataset, so only sealed files must give the same result or an error. An error
    says `named` where it cannot name the file, because the file is valid by itself.
    """

    file: str
    command: str
    outputs: str = ""
    sealed: bool = True
    named: str = ""


OPTIONS = {"text": "side_branch", "queue_batches": 2, "hidden": 8, "heads": 2}


def spec(prepared, run: str = "tiny.cmer", **training) -> RunSpec:
    data = {"run": run, "dataset": "squares", "seed": 1, "backbone": BACKBONE, "method": "cmer", "options": OPTIONS}
    given = {"epochs": 1, "batch_size": 6, "lr": 0.002, "threads": 1} | training
    return validate(RunSpec, data | {"training": given, "source": None}, "spec")


def call(command: str, *arguments: str) -> None:
    """Run a command whose words contain no spaces, but for `arguments`."""
    result = CliRunner().invoke(app, [*command.split(), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def table_spec(kind: str) -> str:
    run = {"backbone_printed": "tiny", "method": "cmer", "options": {}}
    if kind == "table3":
        return json.dumps({"kind": kind, "runs": [run | {"name": "cmer"}], "protocols": [], "seeds": []})
    runs = [
        run | {"options": OPTIONS, "name": f"tiny.{name}", "dataset": "squares", "dataset_title": "squares"}
        for name in ("a", "b")
    ]
    return json.dumps({"kind": kind, "runs": runs, "protocols": ["none"], "seeds": [1]})


def interrupted(action: Callable[[], object], owner: type, name: str, after: int) -> None:
    """Run `action` until the method `name` of `owner` has run `after` times."""
    whole, calls = getattr(owner, name), 0

    def counted(*arguments, **keywords):
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return whole(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, name, counted)
        action()


@pytest.fixture(scope="module")
def project(prepared, tmp_path_factory) -> Path:
    """A folder with one file of every kind, a half extraction in half/, and the state of an unfinished training."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(prepared.folder, "data", ignore=shutil.ignore_patterns("*prompted*", "queries*", "validation*"))
        for name, file in (("prompts", "captions"), ("queries", "queries"), ("validation", "validation")):
            shutil.copy(getattr(prepared, file), f"{name}.csv")
        features = FeatureSpec(dataset=prepared.options, backbone=BACKBONE)
        Path("features_spec.json").write_text(features.model_dump_json())
        call(FEATURES, features.model_dump_json())
        arguments = (Path("data"), Path("prompts.csv"), Path("queries.csv"), Path("half"))
        interrupted(lambda: extract_dataset(features, *arguments), Sink, "append", after=9)
        for run in ("a", "b"):
            call(
                f"train {RUN} --out {run}.safetensors --curve {run}.jsonl --spec",
                spec(prepared, f"tiny.{run}").model_dump_json(),
            )
            call(f"{EMBED} {run}.safetensors")
            Path("o.safetensors").rename(f"{run}.embeddings")
            call(f"{EVALUATE} {run}.embeddings")
            Path("o.json").rename(f"{run}.json")
            Path("o.csv").rename(f"{run}.ranks.csv")
        call("table --metrics a.json --metrics b.json --out table.csv --spec", table_spec("differences"))
        call(PROFILE)
        files = RunFiles(Path("data"), Path("prompts.csv"), Path("validation.csv"), None, Path("features.json"))
        unfinished = spec(prepared, epochs=2)
        Path("unfinished.json").write_text(unfinished.model_dump_json())
        interrupted(
            lambda: train_run(unfinished, files, Path("c.safetensors"), Path("c.jsonl")), Trainer, "validate", after=1
        )
    return folder


TRAIN = "train --out o.safetensors --curve o.jsonl"
AUGMENT = 'augment --spec {"source":"demo"} --folder data --out o.csv --queries q.csv'
EXTRACT = "extraction in half/"
TABLE = "table --metrics a.json --metrics b.json --out o.csv"
READERS = [
    Reader("data/images.csv", "split --folder data --seed 1 --out o.csv", sealed=False),
    Reader("data/images.csv", AUGMENT, sealed=False),
    Reader("data/captions.csv", AUGMENT, sealed=False),
    Reader("data/hashes.csv", "leaks --folder data --out o.csv --summary q.csv", sealed=False),
    Reader("prompts.csv", TRAIN, sealed=False, named="no stored features for the text"),
    Reader("validation.csv", TRAIN, sealed=False),
    Reader("queries.csv", f"{EVALUATE} a.embeddings", sealed=False),
    Reader("features.json", TRAIN, "o.safetensors"),
    Reader("work/features/*/pooled_images.bin", TRAIN, "o.safetensors"),
    Reader("work/features/*/text_starts.bin", TRAIN, "o.safetensors"),
    Reader("work/features/*/image_block_1.bin", TRAIN, "o.safetensors"),
    Reader("work/features/*/checked.json", TRAIN, "o.safetensors"),
    Reader("half/*/progress.json", EXTRACT, "o.json"),
    Reader("half/*/pooled_images.bin", EXTRACT, "o.json"),
    Reader("work/train/*/state.pt", f"{TRAIN} (resumed)", "o.safetensors"),
    Reader("a.safetensors", f"{EMBED} a.safetensors", "o.safetensors"),
    Reader("a.safetensors", "validation --checkpoint a.safetensors --out o.csv", "o.csv"),
    Reader("a.embeddings", f"{EVALUATE} a.embeddings", "o.json o.csv s.json q.json"),
    Reader("a.json", TABLE, "o.csv"),
    Reader("a.ranks.csv", TABLE, "o.csv"),
    Reader("profile.json", "table --efficiency profile.json --out o.csv", "o.csv"),
    Reader("table.csv", "show table.csv", sealed=False),
]


def run(reader: Reader, prepared) -> None:
    """Run the command of a reader; those of whole runs take their spec from the project."""
    if reader.command == EXTRACT:
        features = FeatureSpec.model_validate_json(Path("features_spec.json").read_text())
        extract_dataset(features, Path("data"), Path("prompts.csv"), Path("queries.csv"), Path("half")).write("o.json")
    elif reader.command == TRAIN:
        call(f"{TRAIN} {RUN} --spec", spec(prepared).model_dump_json())
    elif reader.command.startswith(TRAIN):
        call(f"{TRAIN} {RUN} --spec", Path("unfinished.json").read_text())
    elif reader.command.startswith("table"):
        call(f"{reader.command} --spec", table_spec("table3" if "efficiency" in reader.command else "differences"))
    else:
        call(reader.command)


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes, bytes], bytes]:
    """A change of a file's content, given another file's content too."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "repeat", "drop", "other", "empty", "replace"]))
    place, length = draw(st.floats(0, 1)), draw(st.integers(1, 40))
    garbage = draw(st.binary(min_size=1, max_size=40) | st.sampled_from([b'"', b",", b"\n\n", b"NaN", b"-1", b"\xff"]))

    def change(content: bytes, other: bytes) -> bytes:
        at = int(place * max(0, len(content) - 1))
        head, tail = content[:at], content[at:]
        return {
            "flip": head + bytes([tail[0] ^ 0x80]) + tail[1:] if tail else garbage,
            "cut": head,
            "insert": head + garbage + tail,
            "repeat": head + tail[:length] + tail,
            "drop": head + tail[length:],
            "other": other,
            "empty": b"",
            "replace": head + garbage + tail[len(garbage) :],
        }[kind]

    return change


@pytest.fixture(scope="module")
def expected(project, prepared, tmp_path_factory) -> Iterator[dict[str, dict[str, bytes]]]:
    """The outputs of every reader on undamaged files."""
    found: dict[str, dict[str, bytes]] = {}
    for number, reader in enumerate(READERS):
        place = tmp_path_factory.mktemp("whole") / "project"
        shutil.copytree(project, place)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            run(reader, prepared)
            found[str(number)] = {name: Path(name).read_bytes() for name in reader.outputs.split()}
    return found


@pytest.mark.parametrize("number", range(len(READERS)), ids=[f"{r.command.split()[0]} {r.file}" for r in READERS])
def test_a_damaged_file_is_named_or_changes_nothing(number, project, prepared, expected, tmp_path_factory) -> None:
    reader = READERS[number]
    others = [path for path in sorted(project.rglob("*")) if path.is_file() and path.stat().st_size < 10**6]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damages(), st.integers(0, len(others) - 1))
    def damaged(damage, other) -> None:
        place = tmp_path_factory.mktemp("damaged") / "project"
        shutil.copytree(project, place)
        (file,) = place.glob(reader.file)
        content = file.read_bytes()
        changed = damage(content, others[other].read_bytes())
        file.write_bytes(changed)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            try:
                run(reader, prepared)
            except UserError as error:
                words = [Path(reader.file).name, *([reader.named] if reader.named else [])]
                assert "*" in reader.file or any(word in str(error) for word in words), str(error)
                assert len(str(error)) > 20
            else:
                same = {name: Path(name).read_bytes() for name in reader.outputs.split()} == expected[str(number)]
                assert same or not reader.sealed
        shutil.rmtree(place)

    damaged()
