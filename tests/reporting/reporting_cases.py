"""Runs as a table's spec holds them."""

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
