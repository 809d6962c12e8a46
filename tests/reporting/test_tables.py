import json

import pytest
from reporting_cases import D1, D2, OFF, V2, of, run

from cmer.config.base import validate_json
from cmer.errors import UserError
from cmer.io import read_sealed, write_sealed
from cmer.reporting.base import FigureSpec, Files, TableSpec, build_table


def table(number, rows, files, seeds=(1, 2, 3), protocols=("none", "oracle")):
    spec = {"kind": f"table{number}", "runs": rows, "protocols": protocols, "seeds": seeds}
    return build_table(TableSpec.model_validate(spec), Files(metrics=files))


def test_printed_rows_come_first_and_say_that_nothing_ran_them():
    result = table(2, [], [])
    assert result["source"].tolist() == ["paper"] * 23
    assert set(result["status"]) == {"not run here"}
    swan = of(result, method="SWAN")
    assert (swan["mr"], swan["i2t_r1"], swan["params_m"], swan["dataset"]) == ("20.61", "7.41", "", "RSICD")
    assert of(result, method="CMER(ours)", backbone="ViT-B-16")["note"].startswith("presumed protocol")


def test_a_run_that_repeats_a_printed_row(write_metrics):
    probe = run("vit_b_32.linear_probe", "linear_probe", backbone="ViT-B-32")
    result = table(1, [probe], write_metrics(probe, {1: 33.0, 2: 34.0, 3: 35.0}))
    row = of(result, source="measured", label_protocol="none")
    assert (row["method"], row["mr"], row["mr_std"], row["mr_ci_low"], row["mr_ci_high"]) == (
        "Linear probe", "34.00", "1.00", "32.50", "35.40",
    )  # fmt: skip
    assert (row["paper_mr"], row["delta_mr"], row["status"]) == ("33.18", "+0.82", "same setting as the printed row")
    assert (row["params_m"], row["seeds"]) == ("2.72", "1 2 3")
    assert (row["train_images"], row["epochs"], row["pairs_seen"]) == ("8734", "20", "174680")
    oracle = of(result, source="measured", label_protocol="oracle")
    assert (oracle["delta_mr"], oracle["note"]) == ("", "uses test labels")
    assert oracle["status"] == "other label protocol"
    assert of(result, source="paper", method="Linear probe")["status"] == "run here: vit_b_32.linear_probe"


@pytest.mark.parametrize(
    ("row", "differs"),
    [
        (run("a", "linear_probe", dataset="demo", title="demo", backbone="ViT-B-32"), "dataset"),
        (run("a", "linear_probe", backbone="ViT-B-16"), "backbone"),
        (run("a", "linear_probe", {"soft_multi_positive": True}, backbone="ViT-B-32"), "method"),
        (run("a", "zero_shot", backbone="ViT-B-32"), "method, backbone"),
        (run("a", "linear_probe", dataset="demo", title="demo", backbone="lite"), "dataset, backbone"),
    ],
)
def test_no_difference_where_something_else_was_measured(write_metrics, row, differs):
    result = table(1, [row], write_metrics(row, {1: 40.0}), seeds=[1])
    measured = of(result, source="measured", label_protocol="none")
    assert measured["status"] == f"other {differs}"
    assert (measured["paper_mr"], measured["delta_mr"]) == ("", "")
    assert set(result.loc[result["source"] == "paper", "status"]) == {"not run here"}


def test_cmer_is_compared_under_oracle_and_only_as_d2(write_metrics):
    rows = [run("d2", options=D2), run("d1", options=D1), run("recommended")]
    files = [file for row in rows for file in write_metrics(row, {1: 38.0})]
    result = table(1, rows, files, seeds=[1])
    oracle = of(result, run="d2", label_protocol="oracle")
    assert (oracle["method"], oracle["paper_mr"], oracle["delta_mr"]) == ("CMER(ours)", "47.96", "+0.04")
    assert oracle["note"] == "uses test labels; presumed protocol: true scene label in the test query"
    assert of(result, run="d2", label_protocol="none")["delta_mr"] == ""
    assert set(result.loc[result["run"].isin(["d1", "recommended"]), "delta_mr"]) == {""}


def test_one_seed_says_so(write_metrics):
    probe = run("a", "linear_probe")
    row = of(table(1, [probe], write_metrics(probe, {7: 30.0}), seeds=[7]), source="measured", label_protocol="none")
    assert (row["mr_std"], row["seeds"]) == ("one seed", "7")


def test_the_control_stands_below_once_a_dataset(write_metrics):
    rows = [run("a", "linear_probe"), run("b", "linear_probe")]
    files = [file for row in rows for file in write_metrics(row, {1: 30.0})]
    control = of(table(1, rows, files, seeds=[1]), source="control")
    assert (control["method"], control["mr"]) == ("Scene label only", "5.00")
    assert control["note"].startswith("uses test labels")


def test_missing_metrics_are_named(write_metrics):
    row = run("a", "linear_probe")
    with pytest.raises(UserError, match="rsitmd/a/seed2, rsitmd/a/seed3"):
        table(1, [row], write_metrics(row, {1: 30.0}))
    with pytest.raises(UserError, match="label protocol 'predicted'"):
        table(1, [row], write_metrics(row, {1: 30.0}), seeds=[1], protocols=["predicted"])


def test_parts_of_cmer_stand_beside_the_printed_ones(write_metrics):
    rows = [
        run("v1", options=OFF), run("v1", options=OFF, dataset="rsicd", title="RSICD"), run("d2", options=D2),
        run("lite", options=V2 | {"text": "side_branch"}, backbone="lite"),
        run("recommended"), run("p", "linear_probe"),
    ]  # fmt: skip
    files = [file for row in rows for file in write_metrics(row, {1: 34.0})]
    result = table(4, rows, files, seeds=[1])
    v1 = of(result, run="v1", label_protocol="none", dataset="RSITMD")
    assert (v1["ablation"], v1["paper_mr_rsitmd"], v1["delta_mr"]) == ("v1", "34.07", "-0.07")
    assert of(result, run="v1", label_protocol="none", dataset="RSICD")["delta_mr"] == "+8.06"
    assert of(result, run="v1", label_protocol="oracle", dataset="RSITMD")["status"] == "other label protocol"
    assert of(result, run="d2", label_protocol="oracle")["delta_mr"] == "-3.96"
    lite = of(result, run="lite", label_protocol="none")
    assert (lite["ablation"], lite["text_lora"], lite["delta_mr"]) == ("v2", "0", "")
    assert lite["status"] == "other backbone, options"
    assert of(result, ablation="d1")["status"] == "not run here"
    assert result["run"].tolist()[-4:] == ["recommended", "recommended", "p", "p"]
    assert set(result["status"][-4:]) == {"no printed row"}


def test_adapter_and_queue_tables_are_keyed_by_their_options(write_metrics):
    rows = [run("v2", options=V2), run("wide", options=V2 | {"hidden": 256, "heads": 8, "focus_field": 7})]
    files = [file for row in rows for file in write_metrics(row, {1: 40.0})]
    result = table(5, rows, files, seeds=[1], protocols=["none"])
    assert len(result) == 9
    wide = of(result, hidden_dim="256", focus_field="7")
    assert (wide["run"], wide["iqt"], wide["paper_iqt"], wide["delta_mr"]) == ("wide", "120.00", "114.89", "-0.22")
    assert of(result, run="v2")["paper_mr"] == "40.59"

    rows = [run("v2", options=V2), run("long", options=D1 | {"queue_batches": 8})]
    files = [file for row in rows for file in write_metrics(row, {1: 40.0})]
    result = table(6, rows, files, seeds=[1], protocols=["none"])
    assert result["run"].tolist() == ["v2", "", "", "long"]
    assert result["delta_mr"].tolist() == ["-0.59", "", "", "-0.73"]


def test_the_same_input_gives_the_same_bytes_without_empty_marks(write_metrics):
    rows = [run("a", "linear_probe"), run("d2", options=D2)]
    files = [file for row in rows for file in write_metrics(row, {1: 38.0, 2: 39.0})]
    texts = [table(number, rows, order, seeds=[1, 2]).to_csv() for number in (1, 4) for order in (files, files[::-1])]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    assert "nan" not in texts[0].lower().split(",") + texts[2].lower().split(",")


def test_a_spec_with_a_mistake_names_it():
    with pytest.raises(UserError, match="--spec is not valid JSON"):
        validate_json(TableSpec, "{", "--spec")
    with pytest.raises(UserError, match="unknown key 'seed'"):
        validate_json(
            TableSpec,
            json.dumps({"kind": "table1", "runs": [], "protocols": ["none"], "seeds": [1], "seed": 1}),
            "--spec",
        )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            TableSpec,
            r"kind: unknown table 'tabel1'; known are differences, table1, .*, table6$",
        ),
        (FigureSpec, r"kind: unknown figure 'tabel1'; known are ablation, accuracy_cost, .*text_map$"),
    ],
)
def test_an_unknown_kind_lists_the_known_ones(spec, message):
    given = {"kind": "tabel1", "runs": [run("a")], "seeds": [1]} | ({"protocols": []} if spec is TableSpec else {})
    with pytest.raises(UserError, match=message):
        validate_json(spec, json.dumps(given), "--spec")


def test_a_row_is_compared_with_the_best_one_of_its_dataset_and_protocol(write_metrics):
    rows = [run("good", "linear_probe"), run("bad", "linear_probe"), run("far", dataset="rsicd", title="RSICD")]
    files = [file for row, mr in zip(rows, (60.0, 20.0, 90.0), strict=True) for file in write_metrics(row, {1: mr})]
    result = table(1, rows, files, seeds=[1])
    bad = of(result, run="bad", label_protocol="none")
    assert bad["best_run"] == "good" and bad["supported"] == "yes (one seed)"
    low, mean, high = (float(bad[f"delta_best{name}"]) for name in ("_ci_low", "", "_ci_high"))
    assert low < mean < high < 0
    assert of(result, run="good", label_protocol="none")[["best_run", "delta_best", "supported"]].tolist() == [""] * 3
    assert of(result, run="far", label_protocol="none")["delta_best"] == ""
    assert of(result, run="bad", label_protocol="oracle")["best_run"] == "good"


def test_differences_of_all_pairs(write_metrics):
    rows = [run("a", "linear_probe"), run("b"), run("c", options=D1), run("far", dataset="rsicd", title="RSICD")]
    mrs = (20.0, 60.0, 60.0, 90.0)
    files = [file for row, mr in zip(rows, mrs, strict=True) for file in write_metrics(row, {1: mr, 2: mr})]
    spec = {"kind": "differences", "runs": rows, "protocols": ["none"], "seeds": [1, 2]}
    result = build_table(TableSpec.model_validate(spec), Files(metrics=files))
    pairs = list(zip(result["run"], result["compared_with"], result["supported"], strict=True))
    assert pairs == [("b", "a", "yes"), ("c", "a", "yes"), ("c", "b", "no")]
    assert float(result["ci_low"][0]) < float(result["difference"][0]) < float(result["ci_high"][0])
    assert result["mr_compared"].tolist() == ["20.00", "20.00", "60.00"]


def test_edited_ranks_are_refused(write_metrics):
    rows = [run("a", "linear_probe"), run("b")]
    files = [file for row in rows for file in write_metrics(row, {1: 20.0})]
    ranks = files[0].with_suffix(".ranks.csv")
    text = ranks.read_text()
    assert ",99," in text
    ranks.write_text(text.replace(",99,", ",0,", 1))
    with pytest.raises(UserError, match=r"ranks\.csv is not what was written with the metrics beside it"):
        table(1, rows, files, seeds=[1])


def test_a_comparison_needs_the_ranks(write_metrics):
    rows = [run("a", "linear_probe"), run("b")]
    files = [file for row in rows for file in write_metrics(row, {1: 20.0})]
    files[0].with_suffix(".ranks.csv").unlink()
    with pytest.raises(UserError, match=r"rsitmd.a.1.ranks.csv does not exist; `cmer evaluate` writes it"):
        table(1, rows, files, seeds=[1])


def test_a_reranked_row_says_what_it_reads(write_metrics):
    plain = run("lite.cmer", dataset="rsicd", title="RSICD")
    smr = {"kind": "smr", "temperature": 0.05}
    rows = [plain] + [
        plain | {"name": f"lite.cmer.{name}", "reranker": smr | {"queries": queries}}
        for name, queries in (("smr", "test"), ("bank", "train"))
    ]
    files = write_metrics(plain, {1: 20.0})
    for row in rows[1:]:
        (file,) = write_metrics(row, {1: 22.0})
        metrics = read_sealed(file, "cmer evaluate")
        metrics["record"] |= {"reranking": {"name": row["name"], "chosen": {}, "grid": []}}
        metrics["record"]["spec"]["run"] = "lite.cmer"  # the trained run, which the embeddings are of
        write_sealed(file, metrics, "cmer evaluate")
        files.append(file)
    result = table(2, rows, files, seeds=[1], protocols=["none"])
    found = [of(result, run=row["name"]) for row in rows]
    assert [row["mr"] for row in found] == ["20.00", "22.00", "22.00"]
    ends = ("SMR", "SMR with a bank of training queries")
    assert all(row["options"].endswith(end) for row, end in zip(found[1:], ends, strict=True))
    assert ["transductive" in row["note"] for row in found] == [False, True, False]
    assert all("reranked" in row["status"] for row in found[1:])


def test_metrics_of_one_run_and_seed_are_given_once(write_metrics, tmp_path):
    probe = run("vit_b_32.linear_probe", "linear_probe")
    (file,) = write_metrics(probe, {1: 33.0})
    (tmp_path / "copy.json").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"copy\.json are both of rsitmd/vit_b_32\.linear_probe/seed1"):
        table(1, [probe], [file, tmp_path / "copy.json"], seeds=[1])


@pytest.mark.parametrize("other", [run("a", "zero_shot"), run("a", "linear_probe", {"soft_multi_positive": True})])
def test_metrics_of_another_method_or_options_are_refused(write_metrics, other):
    files = write_metrics(run("a", "linear_probe"), {1: 33.0})
    with pytest.raises(UserError, match=r"rsitmd\.a\.1\.json is of method linear_probe with other options than a here"):
        table(1, [other], files, seeds=[1])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("protocols", "none", "mr"), 34.0, "mr is 34.0, but the mean of the six recalls is 33.0000"),
        (("protocols", "none", "i2t_r1"), -5.0, "protocols.none.i2t_r1: Input should be greater than or equal to 0"),
        (("protocols", "none", "t2i_r5"), None, "protocols.none.t2i_r5"),
        (("protocols",), {}, "protocols: "),
        (("record", "spec"), {}, "record.spec.run: Field required"),
        (("record", "epochs"), "20 or so", "record.epochs"),
        (("controls", "label_only"), "x", "controls.label_only"),
    ],
)
def test_metrics_that_cannot_be_are_refused(write_metrics, path, value, message):
    """Their checksum is right: another version, or an editor that knows it, wrote them."""
    (file,) = write_metrics(run("a", "linear_probe"), {1: 33.0})
    metrics = inner = read_sealed(file, "cmer evaluate")
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    write_sealed(file, metrics, "cmer evaluate")
    with pytest.raises(UserError, match=message) as error:
        table(1, [run("a", "linear_probe")], [file], seeds=[1])
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 1]}, "seeds: 1 appears more than once"),
        ({"protocols": ["none", "none"]}, "protocols: none appears more than once"),
        ({"runs": [run("a"), run("a")]}, "runs: a on rsitmd appears more than once"),
        ({"seeds": []}, "table1 needs at least one label protocol and one seed"),
        ({"protocols": []}, "table1 needs at least one label protocol and one seed"),
    ],
)
def test_a_table_of_nothing_or_of_something_twice_is_refused(changes, message):
    spec = {"kind": "table1", "runs": [run("a")], "protocols": ["none"], "seeds": [1]} | changes
    with pytest.raises(UserError, match=message):
        validate_json(TableSpec, json.dumps(spec), "--spec")
