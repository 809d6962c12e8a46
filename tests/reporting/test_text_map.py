"""The map of test captions by scene."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_project import RUN
from reporting_cases import require_readable

from cmer.errors import UserError
from cmer.reporting.base import FigureSpec, Files, draw_figure
from cmer.reporting.drawings.scatter import draw as draw_map
from cmer.retrieval.scores import texts_of


def draw(results: Path, runs: list[dict], **changed: object):
    files = {
        "embeddings": [results / "embeddings/squares/lite.probe/seed1.safetensors"],
        "images": results / "data/squares/images.csv",
        "queries": results / "captions/squares.queries.csv",
    }
    spec = {"kind": "text_map", "runs": runs, "seeds": [1]}
    return draw_figure(FigureSpec.model_validate(spec), Files(**(files | changed)))


def silhouette(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Mean of (b - a) / max(a, b): a and b are the mean cosine distances to the own and the nearest other class."""
    distances = 1 - vectors @ vectors.T
    found = []
    for row, own in zip(range(len(labels)), labels, strict=True):
        means = {
            label: distances[row][(labels == label) & (np.arange(len(labels)) != row)].mean() for label in set(labels)
        }
        a, b = means[own], min(value for label, value in means.items() if label != own)
        found.append((b - a) / max(a, b))
    return float(np.mean(found))


def test_every_caption_has_a_point_under_both_protocols(results: Path) -> None:
    _, points = draw(results, [RUN])
    assert len(points) == 2 * 45 and set(points["label"]) == {"forest", "desert", "pond"}
    first = points[points["label_protocol"] == "none"]
    vectors = texts_of(results / "embeddings/squares/lite.probe/seed1.safetensors", "none")
    order = np.argsort(first["caption_id"].astype(int).to_numpy())
    labels = first["label"].to_numpy()[order]
    assert float(first["silhouette"].iloc[0]) == pytest.approx(silhouette(vectors, labels), abs=0.006)
    assert draw(results, [RUN])[1].equals(points)


def test_the_figure_is_readable(results: Path, texts_of) -> None:
    figure, _ = draw(results, [RUN])
    require_readable(figure, texts_of(figure))


def test_twelve_classes_differ_by_colour_or_marker() -> None:
    rows = [("a", "none", name, float(place), 0.0, 0.5, 90.0) for place, name in enumerate("abcdefghijkl")]
    columns = ["run", "label_protocol", "label", "x", "y", "silhouette", "knn_accuracy"]
    drawn = draw_map(pd.DataFrame(rows, columns=columns), "squares").axes[0].collections
    looks = {(tuple(one.get_edgecolor()[0]), len(one.get_facecolor()), len(one.get_paths()[0])) for one in drawn}
    assert len(drawn) == len(looks) == 12
    assert len({(colour, filled) for colour, filled, _ in looks}) == 12  # open or filled, which small markers show best


def test_what_is_missing_is_named(results: Path) -> None:
    for missing in ("images", "queries"):
        with pytest.raises(UserError, match="text_map reads embeddings; give --images and --queries with them"):
            draw(results, [RUN], **{missing: None})
    with pytest.raises(UserError, match="needs embeddings of other; run `cmer embed`"):
        draw(results, [RUN | {"name": "other"}])
    images = results / "data/squares/images.csv"
    images.write_text(images.read_text().replace("forest,", ",").replace("pond,", ",").replace("desert,", ","))
    with pytest.raises(UserError, match="fewer than two scene classes"):
        draw(results, [RUN])
