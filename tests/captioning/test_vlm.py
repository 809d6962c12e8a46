"""The captioner that runs a vision-language model, on a random LLaVA of two layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_llava import save_tiny_llava

from cmer.captioning.build import build
from cmer.captioning.vlm.options import VlmOptions
from cmer.config.base import validate
from cmer.errors import UserError
from cmer.io import sha256

PROMPTS = {"keywords": "name the scene", "sentence": "name the objects in one sentence here"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llava")
    save_tiny_llava(made)
    return made


def options(folder: Path | str, **given: Any) -> VlmOptions:
    settings = {"kind": "vlm", "model": str(folder), "prompts": PROMPTS, "max_new_tokens": 6, "dtype": "float32"}
    return validate(VlmOptions, settings | given, "captioner")


def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(4)]
    return [*noise, Image.new("RGB", (40, 20), (20, 200, 30))]


def test_a_text_does_not_depend_on_its_batch(folder: Path) -> None:
    captioner, shown = build(options(folder)), images()
    together = captioner.caption([""] * len(shown), shown)
    assert together == [texts for image in shown for texts in captioner.caption([""], [image])]
    assert together == build(options(folder)).caption([""] * len(shown), shown)
    assert all(set(texts) == set(PROMPTS) and all(len(given) == 1 for given in texts.values()) for texts in together)
    assert len({texts["sentence"][0] for texts in together}) > 2, "the model sees the image"


def test_prompts_reach_the_model(folder: Path) -> None:
    shown = images()
    swapped = {"keywords": PROMPTS["sentence"], "sentence": PROMPTS["keywords"]}
    plain = build(options(folder)).caption([""] * len(shown), shown)
    other = build(options(folder, prompts=swapped)).caption([""] * len(shown), shown)
    assert [texts["keywords"] for texts in plain] == [texts["sentence"] for texts in other]
    assert [texts["keywords"] for texts in plain] != [texts["sentence"] for texts in plain]


def test_answers_are_greedy_and_only_what_the_model_adds(folder: Path) -> None:
    """Against a loop that appends the most likely token, one at a time."""
    captioner, image = build(options(folder)), images()[0]
    processor, model = captioner.processor, captioner.model
    asked = processor(images=[image], text=["USER <image> name the scene ASSISTANT"], return_tensors="pt")
    ids, added = asked["input_ids"], []
    for _ in range(6):
        with torch.no_grad():
            logits = model(input_ids=ids, pixel_values=asked["pixel_values"]).logits
        added.append(int(logits[0, -1].argmax()))
        ids = torch.cat([ids, torch.tensor([[added[-1]]])], dim=1)
    ((answer,),) = (captioner.caption([""], [image])[0]["keywords"],)
    assert answer == processor.decode(added, skip_special_tokens=True)


def test_answers_are_no_longer_than_asked(folder: Path) -> None:
    (texts,) = build(options(folder, max_new_tokens=2)).caption([""], images()[:1])
    assert all(0 < len(text.split()) <= 2 for given in texts.values() for text in given)


def test_origin_is_the_hash_of_every_file(folder: Path) -> None:
    found = build(options(folder)).origin()["files"]
    assert found == {path.name: sha256(path) for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(found)


def test_weights_have_the_type_that_is_asked_for(folder: Path) -> None:
    captioner = build(options(folder, dtype="bfloat16"))
    assert {parameter.dtype for parameter in captioner.model.parameters()} == {torch.bfloat16}
    assert captioner.caption(["", ""], images()[:2])


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder; correct `model`"):
        build(options(tmp_path / "missing"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"cannot load the vision-language model {tmp_path}"):
        build(options(tmp_path))


def test_a_processor_without_chat_template_is_refused(tmp_path: Path) -> None:
    save_tiny_llava(tmp_path, template=None)
    with pytest.raises(UserError, match="has no chat template"):
        build(options(tmp_path))
