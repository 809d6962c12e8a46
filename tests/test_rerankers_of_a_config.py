"""Rerankers in a config: the rows that they give, and what the workflow plans for them."""

from typing import Any

import planned_steps
import pytest
from config_cases import MINIMAL
from planned_steps import Sources, changed, planned, rules_of

from cmer.config.base import ConfigError
from cmer.config.experiment import parse
from cmer.plan_report import ReportPlan

SMR = {"kind": "smr", "runs": ["tiny.cmer"]}


def config(rerankers: dict[str, Any], **sections: Any) -> dict[str, Any]:
    runs = {"cmer": {"method": "cmer"}, "probe": {"method": "linear_probe"}}
    tables = {"table1": {"runs": ["*"]}, "table3": {"runs": ["*"]}}
    return MINIMAL | {"runs": runs, "rerankers": rerankers, "tables": tables} | sections


def plan(rerankers: dict[str, Any], **sections: Any) -> ReportPlan:
    return ReportPlan(parse(config(rerankers, **sections)))


def test_a_reranked_run_is_a_row_of_recall_tables_alone() -> None:
    both = {"kind": "fusion", "runs": ["tiny.cmer"], "partner": "tiny.probe"}
    found = plan({"smr": {"kind": "smr", "runs": ["tiny.*"]}, "both": both})
    trained = ["tiny.cmer", "tiny.probe"]
    reranked = ["tiny.cmer.smr", "tiny.probe.smr", "tiny.cmer.both"]
    assert [run.name for run in found.config.matching(["*"])] == trained + reranked
    assert found.table_metrics("table1") == [
        f"results/metrics/demo/{name}/seed2022.json" for name in trained + reranked
    ]
    assert all(name not in found.table_spec("table3") for name in reranked)
    assert found.checkpoints() == [f"results/checkpoints/demo/{name}/seed2022.safetensors" for name in trained]
    assert [run.name for run in found.config.matching(["*.smr"])] == ["tiny.cmer.smr", "tiny.probe.smr"]


def test_a_partner_is_an_input() -> None:
    found = plan({"smr": SMR, "both": {"kind": "fusion", "runs": ["tiny.cmer"], "partner": "tiny.probe"}})
    assert found.partner_embeddings("both", "demo", "1") == ["results/embeddings/demo/tiny.probe/seed1.safetensors"]
    assert found.partner_bank("both", "demo", "1") == ["results/banks/demo/tiny.probe/seed1.safetensors"]
    assert found.partner_embeddings("smr", "demo", "1") == found.partner_bank("smr", "demo", "1") == []


def test_another_grid_reranks_and_nothing_else() -> None:
    before, after = (planned(plan({"smr": SMR | {"gamma1": [gamma]}})) for gamma in (0.5, 1.0))
    assert rules_of(changed(before, after)) == {"rerank", "table", "report"}
    assert all(step[-1] == "table1" for step in changed(before, after) if step[0] == "table")


def test_more_runs_leave_the_others_as_they_are() -> None:
    before, after = (planned(plan({"smr": {"kind": "smr", "runs": runs}})) for runs in (["tiny.cmer"], ["*"]))
    new = {step for step in changed(before, after) if step[0] == "rerank"}
    assert new == {("rerank", "demo", "tiny.probe", "smr", "2022")}


def test_a_rerankers_source_is_code_of_its_rows_alone(tmp_path, monkeypatch) -> None:
    sources = Sources.copy(tmp_path, monkeypatch)
    whole = plan({"smr": SMR, "both": {"kind": "fusion", "runs": ["tiny.cmer"], "partner": "tiny.probe"}})
    before = planned(whole)
    sources.append("retrieval/rerankers/smr.py")
    after = planned(whole)
    assert changed(before, after) == {("rerank", "demo", "tiny.cmer", "smr", "2022")}
    planned_steps.forget()


@pytest.mark.parametrize(
    ("rerankers", "message"),
    [
        ({"smr": {"runs": ["*"]}}, "rerankers.smr: a mapping with the field 'kind'"),
        ({"smr": {"kind": "sorted", "runs": ["*"]}}, "rerankers.smr.kind: unknown reranker 'sorted'; known are fusion"),
        ({"smr": {"kind": "smr"}}, "rerankers.smr.runs: Field required"),
        ({"smr": {"kind": "smr", "runs": ["lite.*"]}}, "rerankers.smr.runs: 'lite.\\*' matches no run"),
        ({"smr": SMR | {"gamma1": []}}, "rerankers.smr.gamma1: Input should have at least one value"),
        ({"smr": SMR | {"gamma1": [-1.0]}}, "rerankers.smr.gamma1.0: Input should be greater than"),
        ({"smr": SMR | {"temperature": 0.0}}, "rerankers.smr.temperature: Input should be greater than"),
        ({"f": {"kind": "fusion", "runs": ["*"], "partner": "lite.a"}}, "rerankers.f.partner: unknown lite.a"),
        ({"f": {"kind": "fusion", "runs": ["*"], "partner": "tiny.probe"}}, "f.partner: tiny.probe is among its runs"),
        ({"a.b": SMR, "b": {"kind": "smr", "runs": ["tiny.cmer"]}}, "runs: tiny.cmer.a.b appears more than once"),
    ],
)
def test_a_reranker_that_cannot_be_meant_is_refused(rerankers, message) -> None:
    sections: dict[str, Any] = {}
    if "a.b" in rerankers:
        sections["runs"] = {"cmer": {"method": "cmer"}, "cmer.a": {"method": "cmer"}}
        rerankers = {"a.b": SMR, "b": {"kind": "smr", "runs": ["tiny.cmer.a"]}}
    with pytest.raises(ConfigError, match=message):
        plan(rerankers, **sections)


def test_a_partner_needs_the_datasets_of_the_run() -> None:
    runs = {"cmer": {"method": "cmer", "datasets": ["demo", "other"]}, "probe": {"method": "linear_probe"}}
    datasets = {"demo": {"source": "demo"}, "other": {"source": "demo"}}
    given = {"f": {"kind": "fusion", "runs": ["tiny.cmer"], "partner": "tiny.probe"}}
    with pytest.raises(ConfigError, match=r"tiny\.probe does not use all datasets of tiny\.cmer"):
        plan(given, runs=runs, datasets=datasets)


def test_a_table_lists_label_protocols_of_its_runs() -> None:
    captioners = {"mine": {"kind": "jsonl", "path": "a.jsonl"}}
    options = {"captioner": "mine", "query": "rich"}
    runs = {"cmer": {"method": "cmer"}, "rich": {"method": "trsllava", "options": options}}
    given = {"runs": runs, "captioners": captioners}
    for protocols, message in (
        (["none", "oracle"], "tables.t.protocols: tiny.rich is not evaluated under none, oracle, but under rich"),
        (["rich"], "tables.t.protocols: tiny.cmer is not evaluated under rich, but under none, predicted, oracle"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan({}, tables={"t": {"kind": "table1", "runs": ["*"], "protocols": protocols}}, **given)
    one = {"kind": "table1", "runs": ["tiny.rich"], "protocols": ["rich"]}
    plan({}, tables={"t": one, "table3": {"runs": ["*"]}}, **given)
    pairs = {"method": "cmpagl", "options": {"pre_alignment": False}}
    with pytest.raises(ConfigError, match="pairs is not evaluated under oracle, but under none; list"):
        plan({}, tables={"table1": {"runs": ["pairs"]}}, runs={"pairs": pairs})


BANK = {"kind": "smr", "queries": "train"}
PAIRS = {"method": "cmpagl", "options": {"pre_alignment": False}}


@pytest.mark.parametrize("scorer", [PAIRS, {"method": "ieft"}, {"method": "amfmn"}])
def test_a_bank_of_queries_needs_a_method_that_embeds(scorer) -> None:
    runs = {"pairs": scorer, "cmer": {"method": "cmer"}}
    message = "rerankers.smr: it cannot rerank pairs: its method scores pairs.*; use `queries: test`, or leave it out"
    with pytest.raises(ConfigError, match=message):
        plan({"smr": BANK | {"runs": ["*"]}}, runs=runs, tables={})
    plan({"smr": BANK | {"runs": ["tiny.*"]}}, runs=runs, tables={})
    plan({"smr": BANK | {"runs": ["*"], "queries": "test"}}, runs=runs, tables={})
    with pytest.raises(
        ConfigError, match=r"rerankers.qb: it cannot rerank pairs: its method scores pairs.*; omit `querybank`"
    ):
        plan({"qb": {"kind": "querybank", "runs": ["*"]}}, runs=runs, tables={})
    plan({"qb": {"kind": "querybank", "runs": ["tiny.*"]}}, runs=runs, tables={})
    aligned = {"pairs": {"method": "cmpagl"}}
    plan({"smr": BANK | {"runs": ["*"]}}, runs=aligned, tables={})


def test_a_partner_has_the_queries_of_the_run() -> None:
    rich = {"method": "trsllava", "options": {"captioner": "mine", "query": "rich"}}
    other = {"based_on": "rich", "options": {"query_granularity": "paragraph"}}
    runs = {"cmer": {"method": "cmer"}, "pairs": {"method": "ieft"}, "rich": rich, "other": other}
    given = {"runs": runs, "captioners": {"mine": {"kind": "jsonl", "path": "a.jsonl"}}, "tables": {}}
    for run, partner, message in (
        (
            "tiny.cmer",
            "pairs",
            "f.partner: pairs is not evaluated under predicted, shuffled, as tiny.cmer is",
        ),
        ("tiny.rich", "tiny.cmer", "tiny.cmer is not evaluated under rich, as tiny.rich is, but under none, predicted"),
        ("tiny.rich", "tiny.other", "f.partner: the queries of tiny.other are other texts than those of tiny.rich"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan({"f": {"kind": "fusion", "runs": [run], "partner": partner}}, **given)
    plan({"f": {"kind": "fusion", "runs": ["pairs"], "partner": "tiny.cmer"}}, **given)
