"""Where a run places the test captions (Figure 6 of the CMER paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cmer.data.frames import IMAGES, QUERIES, read_frame
from cmer.errors import UserError
from cmer.registry import FIGURES
from cmer.reporting.base import Figure, FigureSpec, Files
from cmer.reporting.measured import formatted
from cmer.retrieval.scores import texts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

PROTOCOLS = ("none", "oracle")
CLASSES, CAPTIONS = 12, 100
"""Maximum number of scene classes, those with most captions, and of captions per class."""
PERPLEXITY = 30
NEIGHBOURS = 5
COLUMNS = ["run", "label_protocol", "caption_id", "label", "x", "y", "silhouette", "knn_accuracy"]


@FIGURES.register("text_map")
class TextMap(Figure):
    """T-SNE of the caption embeddings by scene, with plain queries and with true labels in them.

    Silhouette and accuracy of a vote among the five nearest captions are those of the original space, by cosine
    distance. With its label in it, a caption says its class, so clusters under `oracle` show little.
    """

    reads = ("embeddings",)  # no other result has vectors of texts; published results therefore leave the figure out

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        from cmer.reporting.drawings.scatter import draw  # planning has no need of matplotlib

        captions = _captions(files)
        found = zip(spec.runs, files.embeddings_of(spec.runs), strict=True)
        parts = [_points(run.name, file, protocol, captions) for run, file in found for protocol in PROTOCOLS]
        points = pd.concat(parts, ignore_index=True)
        return draw(points, spec.runs[0].dataset_title), formatted(points, ("x", "y", "silhouette", "knn_accuracy"))


def _captions(files: Files) -> pd.DataFrame:
    """Row, id and label of the captions that are drawn: of the largest classes, the first of each."""
    assert files.images is not None and files.queries is not None, "draw_figure requires them"
    labels = read_frame(files.images, IMAGES).set_index("image_id")["label"]
    queries = read_frame(files.queries, QUERIES)
    captions = pd.DataFrame({"caption_id": queries["caption_id"], "label": queries["image_id"].map(labels)})
    named = captions[captions["label"] != ""]
    largest = named.groupby("label").size().nlargest(CLASSES).index
    if len(largest) < 2:
        raise UserError("the test images have fewer than two scene classes; the figure shows captions by class")
    return named[named["label"].isin(largest)].groupby("label").head(CAPTIONS)


def _points(run: str, file: Path, protocol: str, captions: pd.DataFrame) -> pd.DataFrame:
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    vectors, labels = texts_of(file, protocol)[captions.index.to_numpy()], captions["label"].to_numpy(str)
    perplexity = min(PERPLEXITY, (len(vectors) - 1) // 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", metric="cosine", random_state=0)
    x, y = tsne.fit_transform(vectors).T
    votes = KNeighborsClassifier(NEIGHBOURS, metric="cosine")
    folds: Sequence[float] = cross_val_score(votes, vectors, labels, cv=5)
    return pd.DataFrame(
        {
            "run": run,
            "label_protocol": protocol,
            "caption_id": captions["caption_id"].to_numpy(),
            "label": labels,
            "x": x,
            "y": y,
            "silhouette": float(silhouette_score(vectors, labels, metric="cosine")),
            "knn_accuracy": 100 * float(np.mean(folds)),
        },
        columns=COLUMNS,
    )
