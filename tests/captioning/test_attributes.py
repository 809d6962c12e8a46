"""The attribute captioner, on a backbone whose scores are known."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cmer.backbones.base import Features, Preprocess, Shapes, Tokens
from cmer.captioning.attributes import model
from cmer.captioning.attributes.options import AttributesOptions
from cmer.captioning.base import FIELDS, GRANULARITIES
from cmer.captioning.build import build
from cmer.config.base import validate
from cmer.errors import UserError

PROMPTS = [bank["prompt"].format(attribute) for bank in model.BANKS.values() for attribute in bank["attributes"]]


class Known(torch.nn.Module):
    """Embeds prompt number n as axis n, and an image as ones on the axes that the value of its first pixel selects."""

    shapes = Shapes(image_dim=1, text_dim=1, aligned=True, logit_scale=1.0, blocks=[], text_blocks=[])
    preprocess = Preprocess(size=2, mean=(0, 0, 0), std=(1, 1, 1))

    def __init__(self, wanted: list[list[tuple[str, float]]]) -> None:
        super().__init__()
        self.wanted = wanted
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def tokenize(self, texts: list[str]) -> Tokens:
        ids = torch.tensor([[PROMPTS.index(text)] for text in texts])
        return Tokens(ids, ids >= 0)

    def encode_texts(self, tokens: Tokens) -> Features:
        return Features(3 * torch.eye(len(PROMPTS))[tokens.ids[:, 0]])

    def encode_images(self, pixels: torch.Tensor) -> Features:
        rows = torch.zeros(len(pixels), len(PROMPTS))
        for row, value in enumerate((pixels[:, 0, 0, 0] * 255).round().long().tolist()):
            for attribute, score in self.wanted[value]:
                (number,) = [n for n, prompt in enumerate(PROMPTS) if prompt.endswith(attribute)]
                rows[row, number] = score
        return Features(rows)


def options(**given: Any) -> AttributesOptions:
    return validate(AttributesOptions, {"kind": "attributes", "backbone": {"kind": "tiny"}} | given, "captioner")


def image(value: int) -> Image.Image:
    return Image.fromarray(np.full((2, 2, 3), value, np.uint8))


def test_the_attributes_with_the_highest_scores_fill_the_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        [("scene stadium", 1.0), ("containing cars", 0.9), ("containing trees", 0.95), ("mostly blue", 0.5)],
        [("scene airport", 0.1), ("containing ships", 0.2), ("containing planes", 0.1), ("mostly white", 0.2),
         ("mostly gray", 0.3), ("objects are scattered", 0.7), ("place surrounded by water", 0.1)],
    ]  # fmt: skip
    monkeypatch.setattr(model, "build", lambda _: Known(wanted))
    captioner = build(options(objects=2, colours=2))
    second, first = captioner.caption(["b", "a"], [image(1), image(0)])
    assert second["keywords"] == [
        "scene: airport; main objects: ships, planes; quantity: a single row of; colours: gray, white; "
        "layout: scattered; surroundings: surrounded by water"
    ]
    assert second["sentence"] == [
        "an overhead image of an airport with a single row of ships and planes, gray and white, scattered, "
        "surrounded by water"
    ]
    assert second["paragraph"] == [
        "This overhead image shows an airport. It contains a single row of ships and planes. The dominant colours are "
        "gray and white. The main objects are scattered. The scene is surrounded by water."
    ]
    assert first["keywords"][0].startswith("scene: stadium; main objects: trees, cars; ")
    assert "colours: blue, green" in first["keywords"][0], "equal scores: the order of the bank"
    assert set(first) == set(GRANULARITIES)


def test_as_many_objects_and_colours_as_asked_for() -> None:
    (texts,) = build(options(objects=4, colours=3)).caption(["a"], [image(9)])
    fields = dict(part.split(": ") for part in texts["keywords"][0].split("; "))
    assert list(fields) == list(FIELDS)
    assert [fields[name].count(",") + 1 for name in ("main objects", "colours")] == [4, 3]


def test_towers_that_share_no_space_are_refused() -> None:
    with pytest.raises(UserError, match=r"needs a backbone whose towers share a space, .* those of lite"):
        build(options(backbone={"kind": "lite", "size": 32}))


def test_banks_are_complete_and_without_repetition() -> None:
    assert tuple(model.BANKS) == FIELDS and len(set(PROMPTS)) == len(PROMPTS)
    assert (len(model.BANKS["scene"]["attributes"]), len(model.BANKS["main objects"]["attributes"])) == (33, 80)
    assert all(bank["prompt"].count("{}") == 1 for bank in model.BANKS.values())


def test_origin_names_weights_and_banks(monkeypatch: pytest.MonkeyPatch) -> None:
    before = build(options()).origin()
    assert before == build(options()).origin()
    assert build(options(backbone={"kind": "tiny", "seed": 1})).origin()["weights"] != before["weights"]
    monkeypatch.setitem(model.BANKS, "layout", {"prompt": "{}", "attributes": ["flat"]})
    assert build(options()).origin()["banks"] != before["banks"]
