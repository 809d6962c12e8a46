"""Malformed annotation files and settings: a value or a sentence for the user, never another error, nothing skipped."""

import copy
import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmer.config.datasets import ColumnLabels, FolderLabels, IdLabels, LabelRule, NoLabels, PrefixLabels, SplitFractions
from cmer.config.experiment import Config, parse
from cmer.data.annotations import Entry, normalise_whitespace, read_entries
from cmer.data.frames import TABLE, read_frame, write_frame
from cmer.data.labels import labels_of
from cmer.data.layout import Layout
from cmer.errors import UserError

ROOT = Path(__file__).parents[2]
RULES: list[LabelRule] = [
    PrefixLabels(), ColumnLabels(), FolderLabels(), NoLabels(rule="none"), IdLabels(rule="id", classes=["a"]),
]  # fmt: skip


def fuzzed(examples: int) -> settings:
    """The same examples at every run: a failure is a change of the code, not luck."""
    slow = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=slow)


def read(path: Path) -> list[Entry] | None:
    """The entries of a file, known to be fit for the tables; None where the user is told what is wrong."""
    layout = Layout(path.parent, path, None, ColumnLabels(), split=SplitFractions())
    try:
        entries = read_entries(layout)
        rows = {"file": [entry.filename for entry in entries]}
        rows |= {rule.rule: labels_of(entries, rule, path.parent) for rule in RULES}
    except UserError as error:
        assert str(error).strip()
        return None
    same_again(pd.DataFrame(rows), path)
    same_again(pd.DataFrame({"caption": [text for entry in entries for text in entry.captions]}), path)
    return entries


def same_again(frame: pd.DataFrame, path: Path) -> None:
    """What is written as a table is read back letter by letter."""
    write_frame(path.with_name("frame.csv"), frame)
    assert read_frame(path.with_name("frame.csv"), TABLE).to_dict("list") == frame.to_dict("list")


# --- what files hold, counted apart from the readers ------------------------------------------------


def csv_records(text: str) -> int:
    """Lines of a CSV that are not empty, by hand: an end of line within double quotes ends nothing."""
    count, line, quoted, cell = 0, "", False, ""
    for sign in text.removeprefix("\ufeff") + "\n":
        if sign == '"' and (quoted or not cell.strip(" ")):
            quoted, line, cell = not quoted, line + sign, cell if quoted else ""
        elif sign in "\r\n" and not quoted:
            count, line, cell = count + bool(line), "", ""
        else:
            line, cell = line + sign, "" if sign == "," and not quoted else cell + sign
    return count


def captions_in(path: Path) -> int:
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix == ".csv":
        return csv_records(text) - 1
    if path.suffix == ".json":
        return sum(len(image["sentences"]) for image in json.loads(text)["images"])
    rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    return sum(1 if "caption" in row else len(row["captions"]) for row in rows)


def check(path: Path, data: bytes) -> bool:
    """Whether a file of these bytes was read; then every caption of it was."""
    path.write_bytes(data)
    entries = read(path)
    if entries is not None:
        assert sum(len(entry.sentences) for entry in entries) == captions_in(path)
        assert len({entry.filename for entry in entries}) == len(entries)
    return entries is not None


# --- annotation files -------------------------------------------------------------------------------

KEYS = ["file", "filename", "caption", "captions", "split", "label", "images", "sentences", "raw", "id"]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["train", "val", "test", "a.jpg", "b.jpg", "../a.jpg", "", "a pond", "\ud800", "\0"]),
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
ROWS = st.fixed_dictionaries(
    {"file": st.sampled_from(["a.jpg", "b.jpg", "c/d.tif"]) | SCALARS, "caption": SCALARS},
    optional={"split": SCALARS, "label": SCALARS, "captions": TREES},
)
IMAGES = st.fixed_dictionaries(
    {
        "filename": st.sampled_from(["a.jpg", "b.jpg", "c/d.tif"]) | SCALARS,
        "sentences": st.lists(st.fixed_dictionaries({"raw": SCALARS}), max_size=3) | TREES,
    },
    optional={"split": SCALARS, "label": SCALARS},
)
VALID = {
    ".csv": 'file,caption,split,label\na.jpg,"a pond, b",train,pond\na.jpg,a port,train,pond\nb.tif,é 码头,test,\n',
    ".jsonl": (
        '{"file": "a.jpg", "caption": "a pond", "split": "train"}\n'
        '{"file": "b.jpg", "captions": ["é", "x"], "split": "test"}\n'
    ),
    ".json": json.dumps(
        {
            "images": [
                {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "a pond"}, {"raw": "blue"}]},
                {"filename": "b.jpg", "split": "test", "sentences": [{"raw": "a port"}]},
            ]
        }
    ),
}
EDITS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 12), st.binary(max_size=4)), min_size=1, max_size=4)


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """The bytes with pieces cut out, put in, or replaced."""
    for place, length, piece in edits:
        data = data[:place] + piece + data[place + length :]
    return data


@pytest.mark.parametrize("kind", VALID)
@fuzzed(100)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(tmp_path: Path, kind: str, data: bytes) -> None:
    check(tmp_path / f"captions{kind}", data)


@pytest.mark.parametrize("kind", VALID)
def test_a_changed_file_is_read_whole_or_refused(tmp_path: Path, kind: str) -> None:
    found = []

    @fuzzed(200)
    @given(edits=EDITS)
    def run(edits: list[tuple[int, int, bytes]]) -> None:
        found.append(check(tmp_path / f"captions{kind}", edited(VALID[kind].encode(), edits)))

    run()
    assert len(set(found)) == 2  # some were read, some refused: the changes are neither too small nor too large


@fuzzed(200)
@given(data=TREES | st.fixed_dictionaries({"images": st.lists(IMAGES | TREES, max_size=4) | TREES}))
def test_any_json_is_read_or_refused(tmp_path: Path, data: Any) -> None:
    check(tmp_path / "dataset.json", json.dumps(data).encode())


@fuzzed(200)
@given(rows=st.lists(ROWS | TREES, max_size=4))
def test_any_json_lines_are_read_or_refused(tmp_path: Path, rows: list[Any]) -> None:
    check(tmp_path / "captions.jsonl", "\n".join(map(json.dumps, rows)).encode())


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\\/."), min_size=1, max_size=6)


@fuzzed(120)
@given(rows=st.lists(st.tuples(NAMES, st.text(max_size=12)), min_size=1, max_size=6))
def test_any_names_and_captions_come_back_from_a_csv(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerows([("file", "caption"), *rows])
    path = tmp_path / "captions.csv"
    path.write_bytes(buffer.getvalue().encode("utf-8", "replace"))
    entries = read(path)
    expected: dict[str, list[str]] = {}
    for name, caption in rows:
        expected.setdefault(name, []).append(normalise_whitespace(caption.encode("utf-8", "replace").decode()))
    assert entries is not None and {entry.filename: entry.captions for entry in entries} == expected


# --- settings ---------------------------------------------------------------------------------------


def configs() -> list[dict[str, Any]]:
    """The default experiment, every other one, and the default one on a user's folder."""
    base = yaml.safe_load((ROOT / "config.yaml").read_text())
    others = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "config").glob("*.yaml"))]
    mine = {"source": "folder", "title": "x", "root": "r", "raster": {"bands": [3, 2, 1], "stretch": {"kind": "range"}}}
    return [base, *others, base | {"datasets": {"demo": mine | {"split": {"val": 0.2}, "labels": {"rule": "lists"}}}}]


CONFIGS = configs()
ODD_KEYS = st.text(max_size=5) | st.integers() | st.none() | st.booleans() | st.floats() | st.tuples(st.integers())
SETTINGS = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.binary(max_size=3),
        st.sampled_from(["demo", "folder", "rsicd", "lite", "cmer", "linear_probe", "lite.cmer", "none", "percentile"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_KEYS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def parsed(data: Any) -> Config | None:
    try:
        return parse(data)
    except UserError as error:
        assert str(error).startswith("config is not valid:\n  - ")
        assert len(str(error)) < 100_000
        return None


@fuzzed(150)
@given(data=SETTINGS)
def test_any_settings_are_refused(data: Any) -> None:
    assert parsed(data) is None


@fuzzed(300)
@given(data=st.data())
def test_a_changed_config_is_valid_or_refused(data: st.DataObject) -> None:
    config = copy.deepcopy(CONFIGS[data.draw(st.integers(0, len(CONFIGS) - 1))])
    for _ in range(data.draw(st.integers(1, 2))):
        node: Any = config
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = data.draw(st.sampled_from(keys))
            inner = node[key]
            if not inner or not isinstance(inner, (dict, list)) or data.draw(st.integers(0, 4)) == 0:
                break
            node = inner
        if data.draw(st.booleans()):
            node[key] = data.draw(SETTINGS)
        elif isinstance(node, dict) and data.draw(st.booleans()):
            node[data.draw(ODD_KEYS)] = node.pop(key)
        elif len(node) > 1:
            del node[key]
    parsed(config)
