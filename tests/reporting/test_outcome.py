"""What came out, in sentences, against hand-made metrics."""

import numpy as np
import pandas as pd
import pytest
from reporting_cases import run

from cmer.config.training import Training
from cmer.data.frames import write_frame
from cmer.io import read_sealed, sha256, write_sealed
from cmer.reporting.measured import summarise
from cmer.reporting.metrics import read_metrics
from cmer.reporting.report.outcome import outcomes
from cmer.reporting.report.runs import RunPage
from cmer.reporting.report.spec import ReportRun


@pytest.fixture
def told(write_metrics):
    """The sentences on runs, each with its mR per seed; as many of 40 images are found, always the first ones."""

    def tell(runs: list[tuple[dict, dict[int, float]]], protocols=("none", "oracle")) -> list[str]:
        pages = []
        for row, mrs in runs:
            files = write_metrics(row, mrs)
            for file, mr in zip(files, mrs.values(), strict=True):
                _find(file, mr)
            report_run = ReportRun.model_validate(row | {"training": Training()})
            recalls = [summarise(read_metrics(files), report_run, name, list(mrs)) for name in protocols]
            pages.append(RunPage(report_run, "", "", [], 40, recalls, "", protocols[0], 1, []))
        return [text.striptags().replace("\u00a0", " ") for text in outcomes(pages)]

    return tell


def _find(file, mr: float) -> None:
    """Replace the ranks beside metrics: the first images are found with all of their captions, the others never."""
    owners = {"i2t": np.arange(40), "t2i": np.repeat(np.arange(40), 2)}
    tables = [
        pd.DataFrame({"protocol": protocol, "direction": direction, "query": range(len(image)), "image": image}).assign(
            greater=np.where(image < round(0.4 * mr), 0, 99), tied_negatives=0, tied_positives=1
        )
        for protocol in ("none", "oracle")
        for direction, image in owners.items()
    ]
    write_frame(file.with_suffix(".ranks.csv"), pd.concat(tables))
    found = read_sealed(file, "cmer evaluate")
    write_sealed(file, found | {"ranks": sha256(file.with_suffix(".ranks.csv"))}, "cmer evaluate")


def test_a_lone_run_has_no_runner_up(told) -> None:
    assert told([(run("a"), {1: 30.0})]) == [
        "On RSITMD, a is the only system: mR 30.00 with plain captions (1 seed, 40 test images). "
        "There is none to compare it with."
    ]


def test_the_best_run_and_whether_the_runner_up_is_within_the_noise(told) -> None:
    near = [(run("a"), {1: 30.0, 2: 32.5}), (run("b"), {1: 32.5, 2: 32.5}), (run("c"), {1: 5.0, 2: 5.0})]
    assert told(near) == [
        "On RSITMD, b scores highest among 3 systems at finding the right image or caption: mR 32.50 ± 0.00 with plain "
        "captions (2 seeds, 40 test images). The runner-up is a (31.25 ± 1.77); the difference is within the noise."
    ]
    assert told([*near, (run("d"), {1: 30.0, 2: 30.0})])[0].endswith("is within the noise, as is that from 1 more.")
    far = [(run("a"), {1: 30.0, 2: 30.0}), (run("b"), {1: 70.0, 2: 70.0})]
    assert told(far)[0].endswith("The runner-up is a (30.00 ± 0.00); the difference of 40.00 points exceeds the noise.")


def test_one_seed_is_said_to_be_one(told) -> None:
    assert told([(run("a"), {1: 30.0}), (run("b"), {1: 70.0})])[0].endswith(
        "exceeds the noise of the test images, but there is only one seed, and another may differ."
    )


def test_datasets_are_apart_and_other_protocols_are_named_where_no_query_is_plain(told) -> None:
    rsitmd, rsicd = told([(run("a"), {1: 30.0}), (run("b", dataset="rsicd", title="A & B"), {1: 40.0})])
    assert rsitmd.startswith("On RSITMD, a is the only system") and rsicd.startswith("On A & B, b is the only system")
    (oracle,) = told([(run("a"), {1: 30.0})], ("oracle",))
    assert "mR 40.00 under label protocol oracle (1 seed, 40 test images, uses test labels)" in oracle
