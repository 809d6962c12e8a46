"""A method of several towers and losses goes the whole way: CMPAGL trains, resumes, embeds and evaluates."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_training import call, embed, evaluate, spec, train_arguments

from cmer.training.loop import Trainer
from cmer.training.state import unpacked

SMALL = {"image_size": 16, "width": 8, "depths": [1, 1], "heads": [2, 2], "window": 2, "text_model": "tiny"}


class Interrupted(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("pre_alignment", [True, False])
def test_cmpagl_resumes_and_is_evaluated(prepared, tmp_path, monkeypatch, pre_alignment) -> None:
    monkeypatch.chdir(tmp_path)
    options = SMALL | {"pre_alignment": pre_alignment}
    run = spec(prepared, "cmpagl", options, inputs="online", epochs=2, epoch_of="images", batch_size=8)
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
    if pre_alignment:
        assert tensors["images"].shape == (9, 256) and tensors["texts/none"].shape[1] == 256
    else:
        assert tensors["scores/none"].shape == (9, 45)
    found = evaluate(prepared)["protocols"]
    assert set(found) == ({"none", "predicted", "oracle", "shuffled"} if pre_alignment else {"none"})
    assert 0 < found["none"]["mr"] < 100
