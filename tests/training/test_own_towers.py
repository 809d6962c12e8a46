"""Methods of several towers and losses go the whole way: they train, resume, embed and evaluate."""

import pytest
from interruption import resumed_with_the_same_bytes
from safetensors.torch import load_file
from test_training import embed, evaluate, spec

CMPAGL = {"image_size": 16, "width": 8, "depths": [1, 1], "heads": [2, 2], "window": 2, "text_model": "tiny"}
PIR = {
    **{"image_size": 16, "width": 8, "depths": [1, 1], "heads": [2, 2], "window": 2, "scene_model": "test_resnet"},
    **{"image_weights": None, "scene_weights": None, "text_model": "tiny", "embedding": 16, "kept_tokens": 3},
}
PIR_CNN = {name: PIR[name] for name in PIR if name not in {"width", "depths", "heads", "window"}} | {
    "image_size": 64,
    "image_model": "test_resnet",
}
IEFT = {"image_size": 16, "patch_size": 8, "width": 16, "heads": 2, "blocks": 4, "weights": None, "false_texts": 3}


@pytest.mark.parametrize(
    ("method", "options", "width", "protocols"),
    [
        ("cmpagl", CMPAGL, 256, {"none", "predicted", "oracle", "shuffled"}),
        ("cmpagl", CMPAGL | {"pre_alignment": False}, None, {"none"}),
        ("pir", PIR, 16, {"none", "predicted", "oracle", "shuffled"}),
        ("pir", PIR_CNN, 16, {"none", "predicted", "oracle", "shuffled"}),
        ("ieft", IEFT, None, {"none", "oracle"}),
    ],
)
def test_it_resumes_and_is_evaluated(prepared, tmp_path, monkeypatch, method, options, width, protocols) -> None:
    monkeypatch.chdir(tmp_path)
    run = spec(prepared, method, options, inputs="online", epochs=2, epoch_of="images", batch_size=8)
    state = resumed_with_the_same_bytes(prepared, run, monkeypatch, 4)
    assert state["images_seen"] > 0 and state["step"] > 0

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
