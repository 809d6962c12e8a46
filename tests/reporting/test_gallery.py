"""The figure of queries with the images ranked first."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from artifacts import write_embeddings
from matplotlib.colors import to_rgb
from PIL import Image
from report_project import RUN
from reporting_cases import require_readable

from cmer.config.base import ConfigError, validate
from cmer.data.frames import IMAGES, QUERIES, RANKS, read_frame
from cmer.errors import UserError
from cmer.io import read_json
from cmer.reporting.base import FigureSpec, Files, draw_figure
from cmer.reporting.drawings.gallery import LINES, PIXELS, RIGHT, SIDE, WRONG, Case, wrapped
from cmer.reporting.drawings.gallery import draw as draw_cases
from cmer.reporting.figures.gallery import ROWS
from cmer.reporting.metrics import TableRun
from cmer.reporting.style import COLUMN
from cmer.retrieval.scores import similarity

EMBEDDINGS = "embeddings/squares/lite.probe/seed1.safetensors"
CAPTION = "forest number 3 seen from above, two"


def draw(prepared, results: Path, embeddings: Path | None = None, **settings: object):
    spec = {"kind": "gallery", "runs": [RUN], "seeds": [1, 2], "pictures": prepared.options.model_dump()} | settings
    images, queries = results / "data/squares/images.csv", results / "captions/squares.queries.csv"
    files = Files(embeddings=[embeddings or results / EMBEDDINGS], images=images, queries=queries)
    return draw_figure(validate(FigureSpec, spec, "--spec"), files)


def embedded(results: Path, others: dict[int, int]) -> Path:
    """Embeddings by which every caption finds its image, but these rows, which find the image in another row first."""
    queries = read_frame(results / "captions/squares.queries.csv", QUERIES)
    owner = pd.Index(queries["image_id"].unique()).get_indexer(queries["image_id"])
    images = np.eye(owner.max() + 1, dtype=np.float32)
    texts = images[owner]
    for row, other in others.items():
        texts[row] = 0.6 * texts[row] + 0.8 * images[other]
    file = results / EMBEDDINGS.replace("seed1", "changed")
    tensors = {"images": images, "texts/none": texts, "index/none": np.arange(len(texts))}
    write_embeddings(file, tensors, {"spec": {"run": RUN["name"], "dataset": "squares", "seed": 1}})
    return file


@pytest.mark.parametrize("group", ["best", "near", "worst"])
def test_the_queries_of_a_group_are_those_of_the_evaluation(prepared, results: Path, group: str) -> None:
    shown = read_json(results / "metrics/squares/lite.probe/seed1.queries.json")
    _, points = draw(prepared, results, group=group)
    assert shown["protocol"] == "none" and len(points) == min(ROWS, len(shown[group])) > 1
    for found, own in zip(points.to_dict("records"), shown[group], strict=False):
        assert (found["caption"], found["image_id"]) == (own["caption"], str(own["image_id"]))
        assert (float(found["rank"]), found["tags"].split(", ")) == (own["rank"], own["tags"] or [""])
        assert [found[f"top_{place}"] for place in range(1, 6)] == list(map(str, own["top"]))
        assert found["scene_images"] == str(own["scene_images"]) == "3"
        assert found["bleu"] == ("" if own["bleu"] is None else f"{own['bleu']:.4f}")
        assert (own["bleu"] is None) == (own["top"][0] == own["image_id"])


@pytest.mark.parametrize("protocol", ["none", "oracle"])
def test_a_caption_of_the_config_has_its_rank_under_its_protocol(prepared, results: Path, protocol: str) -> None:
    _, points = draw(prepared, results, queries=[CAPTION.upper() + " ."], protocol=protocol)
    ranks = read_frame(results / "metrics/squares/lite.probe/seed1.ranks.csv", RANKS)
    queries = read_frame(results / "captions/squares.queries.csv", QUERIES)
    row = int(np.flatnonzero(queries["none"] == CAPTION)[0])
    ids = read_frame(results / "data/squares/images.csv", IMAGES).query("split == 'test'")["image_id"].to_numpy()
    own = ranks[(ranks["protocol"] == protocol) & (ranks["direction"] == "t2i")]
    greater = own[own["query"] == queries["caption_id"][row]]["greater"].iloc[0]
    (found,) = points.to_dict("records")
    assert (found["caption"], found["label_protocol"]) == (queries[protocol][row], protocol)
    assert float(found["rank"]) == 1 + greater
    best = ids[np.argsort(-similarity(results / EMBEDDINGS, protocol)[:, row])][:5]
    assert [found[f"top_{place}"] for place in range(1, 6)] == list(map(str, best))


def test_a_changed_rank_changes_the_values_and_a_group_may_have_few_queries(prepared, results: Path) -> None:
    _, points = draw(prepared, results, embedded(results, {0: 3, 1: 3, 11: 4}), group="near")
    assert points["rank"].tolist() == ["2", "2"] and len(set(points["image_id"])) == 2
    figure, points = draw(prepared, results, embedded(results, {0: 3}), group="near")
    assert len(points) == 1 and len(figure.axes) == 1 + 5
    _, points = draw(prepared, results, embedded(results, {}), queries=[CAPTION])
    assert points["rank"].tolist() == ["1"] and points["bleu"].tolist() == [""]
    with pytest.raises(UserError, match=r"lite\.probe has no query among the near misses: rank 2 to 5; choose another"):
        draw(prepared, results, embedded(results, {}), group="near")


def test_the_right_image_has_a_solid_green_frame_with_a_tick_and_others_a_dashed_red_one(
    prepared, results: Path, texts_of
) -> None:
    figure, points = draw(prepared, results, group="near")
    images = read_frame(results / "data/squares/images.csv", IMAGES).set_index("image_id")
    panels = iter(figure.axes)
    for found in points.to_dict("records"):
        for place, id in enumerate([found["image_id"], *(found[f"top_{place}"] for place in range(1, 6))]):
            axes = next(panels)
            right = id == found["image_id"]
            assert right or place > 0
            colours = {to_rgb(spine.get_edgecolor()) for spine in axes.spines.values()}
            assert colours == {to_rgb((RIGHT if right else WRONG)["color"])}
            assert {spine.get_linestyle() == "-" for spine in axes.spines.values()} == {right}
            assert [text.get_text() for text in axes.texts] == ["✓"] * (right and place > 0)
            own = Image.open(Path(prepared.options.root) / "images" / images["file"][int(id)])
            small = own.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS)
            np.testing.assert_array_equal(axes.images[0].get_array(), np.asarray(small))
    assert next(panels, None) is None
    found = texts_of(figure)
    require_readable(figure, [each for each in found if each[0] != "✓"])
    words = " ".join(text for text, _ in found).replace("\N{NO-BREAK SPACE}", " ")
    assert "rank 2 of 9 · 3 " in words and "BLEU 0." in words and "label protocol none, seed 1" in words


def test_long_captions_are_cut_and_stay_inside_the_figure(texts_of) -> None:
    picture = Image.new("RGB", (PIXELS, PIXELS))
    captions = ["many green trees are around a pond " * 20, "W" * 300, "MANY TREES, $5 A PIECE OR $6 " * 9, "a pond ."]
    cases = [Case(text, ["rank 1,043 of 1,093"] * 9, picture, [(picture, False)] * 3) for text in captions]
    figure = draw_cases(cases, "Chosen captions", "a_long_name_of_a_run " * 9)
    found = texts_of(figure)
    require_readable(figure, found)
    assert sum(text.endswith("…") for text, _ in found) >= 3 and "a pond." in [text for text, _ in found]
    written = [text for text in figure.texts if "$" in text.get_text()]
    assert written and not any(text.get_parse_math() for text in written), "prices are no formulas"
    assert len(wrapped(captions[0])) == LINES and wrapped("a pond") == ["a pond"]
    assert figure.get_figwidth() == COLUMN
    for axes in figure.axes:
        box = axes.get_window_extent()
        assert (round(box.width), round(box.height)) == (PIXELS, PIXELS) == (SIDE * 300, SIDE * 300)


def test_what_is_missing_is_named(prepared, results: Path) -> None:
    with pytest.raises(UserError, match=r"needs embeddings of lite\.probe; run `cmer embed`"):
        draw(prepared, results, embedded_as(results, "other"), group="near")
    with pytest.raises(UserError, match="'a moon' is no caption of a test image"):
        draw(prepared, results, queries=["a moon"])
    with pytest.raises(UserError, match="no embeddings for label protocol 'shuffled'"):
        draw(prepared, results, group="near", protocol="shuffled")
    with pytest.raises(ConfigError, match="gallery needs `pictures`, the settings of the dataset"):
        draw(prepared, results, group="near", pictures=None)


def test_pictures_are_those_of_the_prepared_dataset(prepared, results: Path) -> None:
    elsewhere = prepared.options.model_dump() | {"root": str(results / "copy")}
    with pytest.raises(UserError, match=r"copy/images does not exist; correct the dataset's `root`"):
        draw(prepared, results, queries=[CAPTION], pictures=elsewhere)
    shutil.copytree(prepared.options.root, results / "copy")
    assert draw(prepared, results, queries=[CAPTION], pictures=elsewhere)
    Image.new("RGB", (40, 40)).save(results / "copy/images/forest_3.png")
    with pytest.raises(UserError, match=r"forest_3\.png has changed since the dataset was prepared"):
        draw(prepared, results, queries=[CAPTION], pictures=elsewhere)


def test_embeddings_are_found_by_their_run(results: Path) -> None:
    files = Files(embeddings=[embedded_as(results, "other"), results / EMBEDDINGS])
    assert files.embeddings_of([TableRun.model_validate(RUN)]) == [results / EMBEDDINGS]


def embedded_as(results: Path, run: str) -> Path:
    file = results / EMBEDDINGS.replace("seed1", "other")
    write_embeddings(file, {"images": np.eye(9, dtype=np.float32)}, {"spec": {"run": run}})
    return file


def test_the_command_writes_picture_vectors_and_values(prepared, results: Path) -> None:
    from typer.testing import CliRunner

    from cmer.cli.main import app

    spec = {"kind": "gallery", "runs": [RUN], "seeds": [1], "pictures": prepared.options.model_dump(), "group": "worst"}
    files = {"embeddings": EMBEDDINGS, "images": "data/squares/images.csv", "queries": "captions/squares.queries.csv"}
    outputs = {"out": "figures/g.png", "vector": "figures/g.svg", "points": "figures/g.csv"}
    options = [part for name, file in (files | outputs).items() for part in (f"--{name}", str(results / file))]
    done = CliRunner().invoke(app, ["figure", "--spec", json.dumps(spec), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert Image.open(results / "figures/g.png").width == 300 * COLUMN
    assert (results / "figures/g.svg").read_text().count("<image") == 6 * len(pd.read_csv(results / "figures/g.csv"))
