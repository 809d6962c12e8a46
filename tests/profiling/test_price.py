"""The price of an experiment: numbers of pairs, images and scores, in closed form."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cmer.config.experiment import parse
from cmer.data.frames import write_frame
from cmer.errors import UserError
from cmer.profiling import price
from cmer.profiling.counting import Counter, Macs
from cmer.profiling.price import Split, prices, sizes_of
from cmer.progress import console

MACS = Macs(image=3e9, text=2e9, score=1e3, frozen_image=7e9, frozen_text=5e9, forward=1e9, backward=4e9)


@pytest.fixture(autouse=True)
def _fixed_counts(monkeypatch):
    monkeypatch.setattr(Counter, "macs", lambda _self, run: replace(MACS, forward=1e9 * run.options.trains))


def config(method="cmer", dataset="rsicd", seeds=(1,), views=1, options=None, **training):
    run = {"method": method, "datasets": [dataset], "training": {"inputs": "online"} | training}
    run |= {"options": options or {}}
    return parse(
        {
            "seeds": list(seeds),
            "datasets": {dataset: {"source": dataset}},
            "backbones": {"tiny": {"kind": "tiny", "printed": "tiny", "features": {"views": views}}},
            "runs": {"x": run | ({} if method == "ieft" else {"backbones": ["tiny"]})},
        }
    )


def priced(*arguments, **options):
    (found,) = prices(config(*arguments, **options))
    return found


def test_pairs_epochs_and_seeds_multiply() -> None:
    once = priced(epochs=1)
    assert once.pairs == 43_670
    assert once.training == 43_670 * (1e9 + 7e9 + 5e9 + 4e9)
    assert (once.gmacs_forward, once.gmacs_backward) == (13, 4)
    twice, seeds = priced(epochs=2), priced(epochs=1, seeds=(1, 2, 3))
    assert twice.training == 2 * once.training and twice.validation == 2 * once.validation
    assert twice.test == once.test
    assert all(getattr(seeds, part) == 3 * getattr(once, part) for part in price.PARTS)
    assert priced(epochs=1, epoch_of="images").pairs == 8_734
    assert priced(epochs=1, train_images=1_000).pairs == 5_000


def test_a_tenth_of_the_train_images_are_validation_where_a_dataset_has_none() -> None:
    found = priced(dataset="rsitmd", epochs=1)
    assert found.pairs == 3_861 * 5
    assert found.validation == 430 * 10e9 + 2_150 * 7e9 + 430 * 2_150 * 1e3


def test_the_test_scores_all_pairs_under_each_protocol() -> None:
    assert priced().test == 1_093 * 10e9 + 4 * (5_465 * 7e9 + 1_093 * 5_465 * 1e3)
    assert priced(views=4).test == 4 * 1_093 * 10e9 + 4 * (5_465 * 7e9 + 4 * 1_093 * 5_465 * 1e3)
    own = priced(method="ieft")
    assert own.test == 1_093 * 10e9 + 2 * (5_465 * 7e9 + 1_093 * 5_465 * 1e3), "two protocols"


def test_validation_is_bounded_by_its_settings() -> None:
    each = 100 * 10e9 + 500 * 7e9 + 100 * 500 * 1e3
    assert priced(epochs=7, validate_every=5, validation_images=100).validation == 2 * each


def test_members_are_trained_and_validated_one_by_one_and_once_together() -> None:
    """The counts of the method's own parts are those of all members together."""
    single, ensemble = priced(epochs=4), priced(epochs=4, options={"text": "side_branch", "members": 3})
    assert ensemble.training == 4 * 43_670 * (1e9 + 3 * (7e9 + 5e9) + 4e9)
    assert ensemble.validation == single.validation * 5 / 4
    assert ensemble.test == single.test


def test_what_trains_nothing_costs_its_test_alone() -> None:
    found = priced(method="zero_shot", epochs=9)
    assert (found.epochs, found.pairs, found.training, found.validation) == (0, 0, 0, 0)
    assert found.test == priced().test


def test_stored_features_are_extracted_once_and_not_computed_in_training() -> None:
    run, features = prices(config(inputs="stored", method="linear_probe", epochs=1, views=4))
    assert run.training == 43_670 * (1e9 + 4e9)
    assert run.test == 4 * 1_093 * 3e9 + 4 * (5_465 * 2e9 + 4 * 1_093 * 5_465 * 1e3)
    assert (features.run, features.dataset) == ("features of tiny", "rsicd")
    towers = Counter(config()).towers("tiny")
    assert features.extraction == 4 * 10_921 * towers.image + 2 * 54_605 * towers.text


def test_hours_are_operations_by_throughput() -> None:
    found = replace(priced(), training=18e15, validation=0.0, test=9e15)
    assert price.gpu_hours(found.macs, 15) == pytest.approx(1.0)
    assert found.cells(30)["gpu_hours"] == pytest.approx(0.5)
    assert found.cells(30)["training_gmacs"] == 18e6


def test_a_prepared_dataset_counts_as_it_is(tmp_path) -> None:
    wanted = config().model_copy(update={"results": str(tmp_path)})
    folder = tmp_path / "data/rsicd"
    folder.mkdir(parents=True)
    rows = [(n, f"{n}.jpg", "", split, 8, 8, f"{n:064x}") for n, split in enumerate(["train"] * 5 + ["test"] * 2)]
    columns = ["image_id", "file", "label", "split", "width", "height", "sha256"]
    write_frame(folder / "images.csv", pd.DataFrame(rows, columns=columns))
    texts = [(n, image, f"text {n}") for n, image in enumerate([0, 0, 1, 2, 3, 4, 5, 6, 6, 6])]
    write_frame(folder / "captions.csv", pd.DataFrame(texts, columns=["caption_id", "image_id", "caption"]))
    found = sizes_of(wanted, "rsicd")
    assert (found.train, found.val, found.test) == (Split(4, 5), Split(1, 1), Split(2, 4))


def test_a_dataset_of_unknown_size_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no results are
    with pytest.raises(UserError, match=r"size of dataset demo.*snakemake results/data/demo/images\.csv"):
        priced(dataset="demo")


def test_the_table_has_the_total_and_the_assumption(capsys) -> None:
    rows = [replace(priced(), run=name, training=27e15, validation=0.0, test=0.0) for name in ("one", "two")]
    console(width=160).print(price.table(rows, 15))
    shown = capsys.readouterr().out
    assert "estimate" in shown and "15 TFLOP/s" in shown
    one, _, total = [line.split() for line in shown.splitlines() if line.split()[:1] in (["one"], ["two"], ["all"])]
    assert one == ["one", "rsicd", "1", "20", "43,670", "13.00", "4.00", "1.00", "0.00", "0.00", "0.00", "1.00"]
    assert total == ["all", "2.00", "0.00", "0.00", "0.00", "2.00"]
