"""Runs as a table's spec holds them."""

from itertools import combinations

from cmer.registry import METHOD_OPTIONS

OFF = {"focus_adapter": False, "queue_batches": 0, "scene_prompt": False}
V2 = OFF | {"focus_adapter": True}
D1 = V2 | {"queue_batches": 4}
D2 = D1 | {"scene_prompt": True, "label_dropout": 0.0}


def run(name, method="cmer", options=None, dataset="rsitmd", title="RSITMD", backbone="ViT-B-16"):
    """One run of a table's spec."""
    return {
        "name": name,
        "dataset": dataset,
        "dataset_title": title,
        "backbone_printed": backbone,
        "method": method,
        "options": METHOD_OPTIONS.get(method).model_validate(options or {}).model_dump(),
    }


def of(result, **where):
    """The one row with these cells."""
    for name, value in where.items():
        result = result[result[name] == value]
    assert len(result) == 1, result
    return result.iloc[0]


def require_readable(figure, texts):
    """Every drawn text with its box is inside the figure and apart from the others."""
    for text, box in texts:
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
    for (text, box), (neighbour, beside) in combinations(texts, 2):
        width = min(box.x1, beside.x1) - max(box.x0, beside.x0)
        height = min(box.y1, beside.y1) - max(box.y0, beside.y0)
        assert min(width, height) < 1, (text, neighbour)
