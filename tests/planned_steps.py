"""What Snakemake compares for every step of a config, without Snakemake: the rules' planned parameters and inputs."""

import inspect
import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import cmer.plan
from cmer import provenance
from cmer.config import experiment
from cmer.plan import Plan
from cmer.plan_report import ReportPlan
from cmer.provenance import code_digest
from cmer.resources import StepResources

ROOT = Path(__file__).parents[1]
PACKAGE = provenance.PACKAGE
RULES = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
"""Source of all rules: which function of the plan gives what."""

BASELINES = {
    "lite.clip_adapter",
    "lite.clip_bitfit",
    "lite.clip_lora",
    "lite.cross_modal_adapter",
    "lite.pe_rsitr",
    "lite.single_language",
}
CMER = {"lite.cmer_v1", "lite.cmer_v2", "lite.cmer_d1", "lite.cmer_d2", "lite.cmer"}
PART = {"lite.mlp_probe_part", "lite.cmer_part"} | BASELINES
TABLE_1 = {"lite.linear_probe"} | CMER | PART
"""Runs of the demo, by their part in its tables."""

Step = tuple[str, ...]
"""A rule and its wildcards, in the order in which its output has them."""


def config(name: str = "config.yaml") -> dict[str, Any]:
    """A config of the project, as written."""
    data: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return data


def plan(data: dict[str, Any]) -> ReportPlan:
    return ReportPlan(experiment.parse(data))


@dataclass(frozen=True)
class Rule:
    """What a rule's source says of it.

    Attributes:
        wildcards: of its first output.
        params: functions of the plan, or constant digests, by the name of the parameter.
        inputs: functions of the plan that give input files.
        resources: functions of `StepResources`, by the name of the resource.
    """

    name: str
    wildcards: list[str]
    params: dict[str, str | Callable[..., str]]
    inputs: list[str]
    resources: dict[str, str]


def rules() -> list[Rule]:
    """All rules of workflow/rules."""
    _, *parts = re.split(r"^rule (\w+):$", RULES, flags=re.M)
    found = []
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        blocks = dict(re.findall(r"^    (\w+):\n((?:        .*\n)+)", text, re.M))
        digests = dict(re.findall(r'(\w+)=code_digest\("([\w.]+)"\)', blocks.get("params", "")))
        functions = dict(re.findall(r"(\w+)=planned\(PLAN\.(\w+)\)", blocks.get("params", "")))
        output = blocks["output"].strip().split("\n")[0]
        found.append(
            Rule(
                name,
                re.findall(r"\{(\w+)\}", output),
                {name: (lambda module=module: code_digest(module)) for name, module in digests.items()} | functions,
                re.findall(r"planned\(PLAN\.(\w+)\)", blocks.get("input", "")),
                dict(re.findall(r"(\w+)=planned\(RESOURCES\.(\w+)\)", blocks.get("resources", ""))),
            )
        )
    return found


def steps(plan: ReportPlan) -> Iterator[tuple[Rule, dict[str, str]]]:
    """Every step that the config can ask for, with its wildcards."""
    config = plan.config
    on = {(run.name, dataset) for run in config.expanded for dataset in run.datasets}
    reranked = {run.name for run in config.reranked}
    banked = {run.name.removesuffix(f".{name}") for name in config.rerankers for run in config.reranked}
    banked |= {reranker.partner_run for reranker in config.rerankers.values()}
    mapped = {file for figure in config.figures for file in plan.figure_heat_maps(figure)}
    stored = {file for run, dataset in on for file in plan.features_of_run(run, dataset)}
    known = {
        "dataset": config.datasets,
        "backbone": config.backbones,
        "captioner": config.captioners,
        "run": [run.name for run in config.expanded],
        "seed": [str(seed) for seed in config.seeds],
        "table": config.tables,
        "figure": config.figures,
        "reranker": config.rerankers,
        "archive": config.archives,
        "shard": ["0"],
    }
    only = {"draw_demo": ("dataset", plan.drawn), "fetch_data": ("dataset", plan.fetched)}
    only["profile"] = ("backbone", plan.profiled)
    only["exclude_leaks"] = ("dataset", [name for name, data in config.datasets.items() if data.exclude])
    for rule in rules():
        constrained = known | dict([only[rule.name]] if rule.name in only else [])
        for values in itertools.product(*(constrained[name] for name in rule.wildcards)):
            wildcards = dict(zip(rule.wildcards, values, strict=True))
            if "run" in wildcards and (wildcards["run"], wildcards["dataset"]) not in on:
                continue
            if "reranker" in wildcards and f"{wildcards['run']}.{wildcards['reranker']}" not in reranked:
                continue
            place = "heat_maps/{dataset}/{run}/seed{seed}.json"
            if rule.name == "heat_maps" and plan.file(place.format_map(wildcards)) not in mapped:
                continue
            if rule.name == "bank" and wildcards["run"] not in banked:
                continue
            manifest = f"{config.results}/features/{wildcards.get('dataset')}/{wildcards.get('backbone')}.json"
            if rule.name != "extract_features" or manifest in stored:
                yield rule, wildcards


def call(plan: Plan | StepResources, function: str | Callable[..., str], wildcards: dict[str, str]) -> Any:
    """A function of the plan or the resources, called as the workflow calls it; or a constant."""
    if callable(function):
        return function()
    bound = getattr(plan, function)
    return bound(*(wildcards[name] for name in inspect.signature(bound).parameters))


def planned(plan: Plan) -> dict[Step, dict[str, Any]]:
    """What Snakemake compares for every step: its planned parameters and inputs."""
    return {
        (rule.name, *wildcards.values()): {
            **{name: call(plan, function, wildcards) for name, function in rule.params.items()},
            "inputs": [call(plan, function, wildcards) for function in rule.inputs],
        }
        for rule, wildcards in steps(plan)
    }


def resources(plan: Plan) -> dict[Step, dict[str, int]]:
    """The resources that the config alone decides, by step."""
    taken = StepResources(plan.config)
    return {
        (rule.name, *wildcards.values()): {
            name: call(taken, function, wildcards) for name, function in rule.resources.items()
        }
        for rule, wildcards in steps(plan)
    }


def changed(before: dict[Step, Any], after: dict[Step, Any]) -> set[Step]:
    """Steps whose parameters or inputs differ, or which are new."""
    return {step for step, found in after.items() if before.get(step) != found}


@dataclass
class Sources:
    """A copy of the package in which a test can edit sources; digests are then those of the copy."""

    folder: Path

    @classmethod
    def copy(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> "Sources":
        shutil.copytree(PACKAGE, folder / "cmer", ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(provenance, "PACKAGE", folder / "cmer")
        forget()
        return cls(folder / "cmer")

    def append(self, file: str, text: str = "\nCHANGED = 1\n") -> None:
        """Add to a source, or write a new one."""
        path = self.folder / file
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as source:
            source.write(text)
        forget()


def forget() -> None:
    """Read the sources again when a digest is asked for."""
    provenance._source.cache_clear()
    cmer.plan.digest_code.cache_clear()


def rules_of(steps: set[Step]) -> set[str]:
    return {rule for rule, *_ in steps}
