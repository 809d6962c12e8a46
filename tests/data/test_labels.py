from pathlib import Path

import pytest
from pydantic import TypeAdapter

from cmer.config.base import ConfigError, validate
from cmer.config.datasets import FolderDataset, LabelRule
from cmer.data.annotations import Entry
from cmer.data.labels import display_name, labels_of, merged, require_classes
from cmer.errors import UserError

RULE: TypeAdapter[LabelRule] = TypeAdapter(LabelRule)


def labels(rule: dict[str, object], *names: str, root: Path = Path(), **more: str) -> list[str]:
    entries = [Entry.model_validate({"filename": name, "split": "train", "sentences": [], **more}) for name in names]
    return labels_of(entries, RULE.validate_python(rule), root)


@pytest.mark.parametrize(
    ("name", "shown"),
    {
        "airport": "airport", "bareland": "bare land", "baseballfield": "baseball field", "farmland": "farmland",
        "denseresidential": "dense residential", "mediumresidential": "medium residential",
        "sparseresidential": "sparse residential", "playground": "playground", "playfields": "playfields",
        "railwaystation": "railway station", "storagetanks": "storage tanks", "intersection": "intersection",
        "baseballdiamond": "baseball diamond", "golfcourse": "golf course", "mobilehomepark": "mobile home park",
        "parkinglot": "parking lot", "tenniscourt": "tennis court", "StorageTanks": "storage tanks",
        "BareLand": "bare land", "tennis_court": "tennis court", " River ": "river",
        "-rf": "rf", "_sea__port_": "sea port", "sea\u2010port": "sea port", "\ufefffor\u200best\u00ad": "forest",
        "_": "", "-": "", " _-_ ": "", "\u200b": "", "...": "", "\u2014": "", "7": "7", "\u6e2f": "\u6e2f",
    }.items(),
)  # fmt: skip
def test_class_names_are_shown_as_words(name: str, shown: str) -> None:
    assert display_name(name) == shown


def test_prefix_labels_what_stands_before_the_underscore() -> None:
    rule = {"rule": "prefix"}
    assert labels(rule, "storagetanks_12.jpg", "00451.jpg", "sub/pond_1.tif") == ["storage tanks", "", "pond"]


def test_id_counts_by_hundreds() -> None:
    rule = {"rule": "id", "classes": ["agricultural", "tenniscourt"], "per_class": 100}
    found = labels(rule, "1.tif", "100.tif", "101.tif", "200.tif", "201.tif", "0.tif", "x.tif")
    assert found == ["agricultural", "agricultural", "tennis court", "tennis court", "", "", ""]


def test_column_and_none() -> None:
    assert labels({"rule": "column", "column": "scene"}, "a.jpg", scene="BaseballField") == ["baseball field"]
    assert labels({"rule": "column"}, "a_1.jpg") == [""]
    assert labels({"rule": "none"}, "airport_1.jpg") == [""]


@pytest.mark.parametrize("folder", ["_", "-", "\u200b"])
def test_an_image_in_a_folder_without_a_name_has_no_label(folder: str) -> None:
    assert labels({"rule": "folder"}, f"{folder}/a.jpg", "-rf/a.jpg") == ["", "rf"]


def test_lists_label_numbers_and_merge(tmp_path: Path) -> None:
    (tmp_path / "playfields.txt").write_text("00001.jpg\n00002.jpg\n")
    (tmp_path / "bridge.txt").write_text("bridge_1.jpg\n\n")
    files = ("00001.jpg", "bridge_1.jpg", "pond_7.jpg", "00009.jpg")
    plain = {"rule": "lists", "folder": "."}
    assert labels(plain, *files, root=tmp_path) == ["playfields", "bridge", "pond", ""]
    found = merged(labels(plain, *files, root=tmp_path), {"Play_Fields": "playground", "playfields": "playground"})
    assert found == ["playground", "bridge", "pond", ""]


@pytest.mark.parametrize(
    ("found", "classes", "message"),
    [
        (["farm", "pond", ""], {"farms": "pond"}, r"x\.merge: no image has the class farms; classes are farm, pond$"),
        (["", ""], {"farm": "pond"}, r"no image has the class farm; classes are none$"),
        (["farm", "pond"], {"farm": "pond", "pond": "lake"}, "farm is merged into pond, which is merged into lake"),
        (["farm"], {"farm": "farm"}, r"x\.merge: farm is merged into itself$"),
        (["farm"], {"FARM": "_Farm"}, "farm is merged into itself"),
        (["farm"], {"Farm": "x", "farm": "y"}, r"x\.merge: 'Farm' and 'farm' are the same class; merge it once"),
        (["sea port"], {"sea port": "x", "sea_port": "x"}, "'sea port' and 'sea_port' are the same class"),
        (["farm"], {"farm": "x", "farm\u200b": "y"}, r"'farm' and 'farm\\u200b' are the same class"),
        (
            ["sea port", "pond", "seaport"],
            {},
            r"'sea port' and 'seaport'; .* x\.merge: {.seaport.: .sea port.}",
        ),
        (["caf\u00e9", "cafe\u0301"], {}, "two classes are called"),
        (["farm", "seaport"], {"farm": "sea port"}, "two classes are called 'sea port' and 'seaport'"),
    ],
)
def test_classes_to_merge_exist_and_no_class_has_two_spellings(
    found: list[str], classes: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        require_classes(found, classes, "x.merge")


def test_merging_makes_one_class_of_two_spellings() -> None:
    require_classes(["sea port", "seaport", "c", "c++", ""], {"seaport": "sea port"}, "x.merge")


def test_lists_that_are_missing_or_disagree_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no class lists .* in .*absent"):
        labels({"rule": "lists", "folder": "absent"}, "1.jpg", root=tmp_path)
    (tmp_path / "bridge.txt").write_text("1.jpg\n")
    (tmp_path / "river.txt").write_text("1.jpg\n")
    with pytest.raises(UserError, match=r"1\.jpg \(bridge, river\)"):
        labels({"rule": "lists", "folder": "."}, "1.jpg", root=tmp_path)


@pytest.mark.parametrize("template", ["{label}", "{caption}", "{caption}, {label}", "no slots"])
def test_a_template_names_the_label_before_the_caption(template: str) -> None:
    with pytest.raises(ConfigError, match=r"must contain \{label\} and, after it, \{caption\}"):
        validate(FolderDataset, {"source": "folder", "title": "x", "root": "r", "template": template}, "dataset")
