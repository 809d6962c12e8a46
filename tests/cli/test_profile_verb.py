import json
import re

import pytest
from typer.testing import CliRunner

from cmer.cli.profile import app
from cmer.errors import UserError
from cmer.profiling.show import show


def call(*arguments):
    result = CliRunner().invoke(app, ["profile", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_a_spec_to_a_file_and_a_printed_table(tmp_path) -> None:
    rows = [{"run": "tiny.clip_adapter", "method": "clip_adapter", "options": {"preset": "houlsby64"}}]
    options = {"batches": [2, 3], "steps": 2, "rounds": 1, "settings": ["today"], "threads": 1}
    spec = {"name": "tiny", "backbone": {"kind": "tiny", "printed": "tiny"}, "rows": rows, "profile": options}
    out, record = tmp_path / "efficiency.json", tmp_path / "record.json"
    printed = call("--spec", json.dumps(spec), "--out", out, "--record", record)
    found = json.loads(out.read_text())
    assert [row["batch"] for row in found["rows"]] == [2, 3]
    for row in found["rows"]:
        assert row["run"] == "tiny.clip_adapter" and row["options"]["preset"] == "houlsby64"
        assert row["peak_bytes"] > 0 and row["saved_bytes"] > 0 and row["macs_backward"] > 0 and row["steps"] == 2
        assert 0 < row["pairs_per_second_low"] <= row["pairs_per_second"] <= row["pairs_per_second_high"]
    assert {"device", "threads", "versions", "code"} <= set(found)
    assert "seconds" in json.loads(record.read_text())
    assert "tiny.clip_adapter" in printed and "ratios" not in printed


def row_of(method, peak, speed, run=None):
    return {
        **{"run": f"x.{run or method}", "method": method, "setting": "today", "batch": 4, "tokens": 20},
        **{"parameters": 2_719_552, "saved_bytes": 2_300_000, "macs_forward": 8e9, "macs_backward": 4e9},
        **{"peak_bytes": peak and peak * 1e6, "pairs_per_second": speed},
        **{"pairs_per_second_low": speed and speed - 1, "pairs_per_second_high": speed and speed + 2},
    }


def shown(capsys, rows, slopes, device):
    """What is printed: costs and ratios."""
    saved = [{"run": run, "setting": "today", "bytes_per_pair": 1e6 * slope} for run, slope in slopes.items()]
    show({"backbone": "x", "device": device, "rows": rows, "saved": saved})
    return re.split(r"today, batch 4.*\n", capsys.readouterr().out)


def cells(line):
    return re.split(r"\s{2,}", line.strip())


def test_printed_costs_and_ratios(capsys) -> None:
    rows = [row_of("cmer", 49, 14), row_of("clip_adapter", 100, 10), row_of("clip_lora", None, None)]
    rows[1] |= {"macs_backward": 10e9}
    rows[2] |= {"macs_backward": None}
    rows.append(row_of("clip_lora", 70, 20, run="clip_lora8"))
    slopes = {"x.cmer": 0.3, "x.clip_adapter": 0.4, "x.clip_lora": 1.2, "x.clip_lora8": 0.6}
    costs, ratios = (part.splitlines() for part in shown(capsys, rows, slopes, "cpu: y"))
    assert costs[0].strip() == "x on cpu: y" and "resident memory" in "".join(costs)
    (start,) = [number for number, line in enumerate(costs) if cells(line)[0] == "run"]
    expected = {"run": "x.cmer", "setting": "today", "batch": "4", "tokens": "20", "trained M": "2.72"}
    expected |= {"kept MB": "2.3", "kept MB/pair": "0.3", "GMACs forward": "2.00", "backward": "1.00"}
    expected |= {"peak MB": "49.0", "pairs/s": "14.00", "slowest": "13.00", "fastest": "16.00"}
    assert dict(zip(cells(costs[start]), cells(costs[start + 2]), strict=True)) == expected

    (start,) = [number for number, line in enumerate(ratios) if cells(line)[0] == "run"]
    references = cells(ratios[start])[1:]
    names = [f"{what} {run}" for what, run in zip(cells(ratios[start - 1]), references, strict=True)]
    run, *found = cells(ratios[start + 2])
    columns = {"x.clip_adapter": "0.75 0.49 1.40 (1.50)", "x.clip_lora": "0.25 - - (-)"}
    columns |= {"x.clip_lora8": "0.50 0.70 0.70 (1.00)"}
    kinds = ("kept/pair", "peak", "pairs/s")
    expected = {
        f"{what} to {reference}": cell
        for reference, each in columns.items()
        for what, cell in zip(kinds, each.split(maxsplit=2), strict=True)
    }
    assert run == "x.cmer" and dict(zip(names, found, strict=True)) == expected


def test_ratios_need_a_reference_and_another_run(capsys) -> None:
    rows, slopes = [row_of("cmer", 49, 14), row_of("clip_lora", 70, 20)], {"x.cmer": 0.3, "x.clip_lora": 0.6}
    costs, _ = shown(capsys, rows, slopes, "cuda: y")
    assert "all tensors" in costs and "resident memory" not in costs
    assert len(shown(capsys, rows[:1], slopes, "cuda: y")) == len(shown(capsys, rows[1:], slopes, "cuda: y")) == 1


def test_the_options_are_what_is_measured(monkeypatch) -> None:
    given = []
    monkeypatch.setattr("cmer.profiling.profile.profile", lambda spec: given.append(spec) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("--backbone", "ViT-B-32-quickgelu", "--method", "cmer", "--batch", "8", "--rounds", "2", "--count-only")
    (spec,) = given
    assert (spec.backbone.kind, spec.backbone.model) == ("open_clip", "ViT-B-32-quickgelu")
    assert [row.method for row in spec.rows] == ["cmer"]
    assert (spec.profile.batches, spec.profile.rounds, spec.count_only) == ((8, 16), 2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "cmre"], r"unknown method 'cmre'; known are .*clip_lora.*cmer"),
        (["--method", "cmer", "--batch", "4", "--batch", "4"], r"\[4, 4\] must be two different sizes"),
        (["--method", "cmer", "--batch", "1"], r"batches.*greater than or equal to 2"),
        (["--method", "cmer", "--setting", "yesterday"], r"paper_like.*today.*yesterday"),
        ([], r"--backbone and --method, or --spec"),
    ],
)
def test_mistakes_are_named_before_anything_starts(arguments, message, monkeypatch) -> None:
    monkeypatch.setattr("cmer.profiling.profile.profile", lambda _: pytest.fail("started"))
    with pytest.raises(UserError) as error:
        call("--backbone", "tiny", *arguments)
    assert re.search(message, str(error.value), re.S)
