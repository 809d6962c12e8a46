"""Which steps an edited source, card or printed value plans: the code digests of the plan. No Snakemake runs here."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import planned_steps
import pytest
from planned_steps import Sources, Step, changed, config, plan, planned, rules_of

import cmer.plan
from cmer.config import datasets
from cmer.data import cards

RUNS = {run.name for run in plan(config()).config.expanded}


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sources]:
    yield Sources.copy(tmp_path, monkeypatch)
    monkeypatch.undo()
    planned_steps.forget()


def after_edit(sources: Sources, file: str, text: str = "\nCHANGED = 1\n", of: str = "config.yaml") -> set[Step]:
    """Steps of a config that an edited source plans."""
    before = planned(plan(config(of)))
    sources.append(file, text)
    return changed(before, planned(plan(config(of))))


def runs_of(steps: set[Step]) -> set[str]:
    return {step[2] for step in steps if step[0] in ("train", "embed", "evaluate")}


def test_edited_method_plans_its_runs_only(sources: Sources) -> None:
    steps = after_edit(sources, "methods/linear_probe/model.py")
    runs = {"lite.linear_probe", "lite.mlp_probe_part"}
    assert steps == {(rule, "demo", run, "2022") for rule in ("train", "embed") for run in runs} | {("profile", "lite")}


def test_edited_options_of_a_method_plan_its_runs_only(sources: Sources) -> None:
    steps = after_edit(sources, "methods/clip_lora/options.py")
    assert runs_of(steps) == {"lite.clip_lora"}
    assert rules_of(steps) == {"train", "embed", "profile"}


def test_edited_backbone_plans_its_runs_only(sources: Sources) -> None:
    steps = after_edit(sources, "backbones/tiny/model.py", of="config/ci.yaml")
    assert runs_of(steps) == {"tiny.cmer", "tiny.clip_lora"}
    assert steps - {step for step in steps if step[0] in ("train", "embed")} == {
        ("extract_features", "demo", "tiny"),
        ("heat_maps", "demo", "tiny.cmer", "2022"),
        ("profile", "tiny"),
    }


def test_edited_negative_queue_plans_the_runs_that_have_one(sources: Sources) -> None:
    """A loss counts for the runs whose method computes it."""
    steps = after_edit(sources, "losses/hinge.py")
    assert runs_of(steps) == {run for run in RUNS if run.startswith("lite.cmer")}


def test_edited_batch_loss_plans_the_runs_that_name_it(sources: Sources) -> None:
    def of_loss(name: str) -> set[str]:
        spec = plan(config()).config
        return {run.name for run in spec.expanded if f"cmer.losses.batch.{name}" in run.options.modules()}

    assert of_loss("contrastive") == RUNS
    assert runs_of(after_edit(sources, "losses/batch/contrastive.py")) == RUNS
    assert not after_edit(sources, "losses/batch/another.py", "from torch import Tensor\n")


def test_comment_new_method_and_command_line_plan_nothing(sources: Sources) -> None:
    assert not after_edit(sources, "methods/cmer/model.py", "\n# a comment\n")
    assert not after_edit(sources, "cli/models.py")
    assert not after_edit(sources, "methods/another/model.py", "from cmer.methods.base import Method\n")
    assert not after_edit(sources, "methods/another/options.py", "from cmer.config.methods import MethodOptions\n")
    assert not after_edit(sources, "config/experiment.py")
    assert not after_edit(sources, "plan.py")


def test_edited_measure_trains_nothing(sources: Sources) -> None:
    steps = after_edit(sources, "retrieval/bootstrap.py")
    assert {step for step in steps if step[0] == "evaluate"} == {("evaluate", "demo", run, "2022") for run in RUNS}
    assert "train" not in rules_of(steps) and "embed" not in rules_of(steps)


def test_edited_drawing_draws_again_and_profiles_nothing(sources: Sources) -> None:
    for file in ("scenes/nature.py", "scenes/captions.py"):
        assert after_edit(sources, file) == {("draw_demo", "demo")}


def test_corrected_printed_value_plans_its_tables_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def corrected(number: int) -> set[Step]:
        original = resources.files("cmer.reporting") / "paper"
        name = "tables_1_2.csv" if number <= 2 else f"table_{number}.csv"
        file = tmp_path / name
        file.write_text((original / name).read_text() + "\n")
        before = planned(plan(config()))
        with monkeypatch.context() as patch:
            read = cmer.plan.printed_file
            patch.setattr(cmer.plan, "printed_file", lambda n: file if read(n).name == name else read(n))
            return changed(before, planned(plan(config())))

    main = {("table", "table1"), ("table", "table2")}
    named = {("table", "table3"), ("figure", "accuracy_cost"), ("figure", "ablation")}
    assert corrected(1) == main | named, "which read the names of its rows"
    assert corrected(3) == {("table", "table3")}
    assert corrected(6) == {("table", "table6")}


def test_new_field_of_a_card_plans_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned(plan(config("config/rsicd_lite.yaml")))
    for file in cards.FOLDER.iterdir():
        if file.suffix in (".yaml", ".json"):
            text = file.read_text()
            (tmp_path / file.name).write_text(text + "bands: 3\n" if file.suffix == ".yaml" else text)

    class Longer(cards.Card):
        bands: int

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "CARDS", tmp_path)
        patch.setattr(cards, "Card", Longer)
        for read in (datasets.card_settings, cards.card):
            read.cache_clear()
        assert cards.card("rsicd").model_dump()["bands"] == 3
        assert not changed(before, planned(plan(config("config/rsicd_lite.yaml"))))
    for read in (datasets.card_settings, cards.card):
        read.cache_clear()
    monkeypatch.undo()
    cards.card.cache_clear()


def test_edited_reader_of_cards_plans_nothing(sources: Sources) -> None:
    """Where a new field is declared; what a card says counts by itself."""
    assert not after_edit(sources, "data/cards/__init__.py", of="config/rsicd_lite.yaml")


def test_another_layout_in_a_card_prepares_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned(plan(config("config/rsicd_lite.yaml")))
    other = cards.card("rsicd").model_copy(update={"images": "pictures"})
    monkeypatch.setattr(cmer.plan, "card", lambda name: other)
    assert changed(before, planned(plan(config("config/rsicd_lite.yaml")))) == {
        ("fetch_data", "rsicd"),
        ("prepare_data", "rsicd"),
    }
