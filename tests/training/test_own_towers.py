"""Methods of several towers and losses go the whole way: they train, resume, embed and evaluate."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_training import call, embed, evaluate, spec, train_arguments

from cmer.training.loop import Trainer
from cmer.training.state import unpacked

CMPAGL = {"image_size": 16, "width": 8, "depths": [1, 1], "heads": [2, 2], "window": 2, "text_model": "tiny"}
PIR = {
    **{"image_size": 16, "width": 8, "depths": [1, 1], "heads": [2, 2], "window": 2, "scene_model": "test_resnet"},
    **{"image_weights": None, "scene_weights": None, "text_model": "tiny", "embedding": 16, "kept_tokens": 3},
}
IEFT = {"image_size": 16, "patch_size": 8, "width": 16, "heads": 2, "blocks": 4, "weights": None, "false_texts": 3}


class Interrupted(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(
    ("method", "options", "width", "protocols"),
    [
        ("cmpagl", CMPAGL, 256, {"none", "predicted", "oracle", "shuffled"}),
        ("cmpagl", CMPAGL | {"pre_alignment": False}, None, {"none"}),
        ("pir", PIR, 16, {"none", "predicted", "oracle", "shuffled"}),
        ("ieft", IEFT, None, {"none", "oracle"}),
    ],
)
def test_it_resumes_and_is_evaluated(prepared, tmp_path, monkeypatch, method, options, width, protocols) -> None:
    monkeypatch.chdir(tmp_path)
    run = spec(prepared, method, options, inputs="online", epochs=2, epoch_of="images", batch_size=8)
    call(*train_arguments(prepared, run, "whole.safetensors"))

    step, done = Trainer.step, []

    def interrupted(self, batch):
        if len(done) == 4:
            raise Interrupted
        done.append(batch)
        return step(self, batch)

    monkeypatch.setattr("cmer.training.loop.SAVE_EVERY", 0.0)
    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(Interrupted):
        call(*train_arguments(prepared, run))
    (file,) = Path("work/train").glob("*/state.pt")
    state = unpacked(file.read_bytes(), file)
    assert state["images_seen"] > 0 and state["step"] > 0
    monkeypatch.setattr(Trainer, "step", step)
    call(*train_arguments(prepared, run))
    assert Path("checkpoint.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()

    embed(prepared)
    tensors = load_file("embeddings.safetensors")
    if width:
        assert tensors["images"].shape == (9, width) and tensors["texts/none"].shape[1] == width
    else:
        assert tensors["scores/none"].shape == (9, 45)
    metrics = evaluate(prepared)
    found, texts = metrics["protocols"], {p: row["unique_texts"] for p, row in metrics["protocols"].items()}
    assert set(found) == protocols and 0 < found["none"]["mr"] < 100
    forwards = metrics["record"]["embedding"].get("pair_forwards")
    assert forwards == (None if width else {protocol: 9 * texts[protocol] for protocol in protocols})
