"""What the systems of a CNN and a GRU share: words, GRU, CNN, settings; and what holds for each of them."""

import pytest
import timm
import torch
from cnn_cases import CAPTIONS, SMALL, SYSTEMS, TEXTS, encoded, losses, naive_states, pixels, scores, system
from pydantic import ValidationError
from safetensors.torch import save_file

from cmer.backbones.base import Tokens
from cmer.backbones.build import build as build_backbone
from cmer.backbones.lite.options import LiteOptions
from cmer.errors import UserError
from cmer.losses.memory import PairIds
from cmer.methods.amfmn.options import AmfmnOptions
from cmer.methods.layers.cnn import CnnStages
from cmer.methods.layers.words import Vocabulary, WordGru, last_state
from cmer.methods.swan.options import SwanOptions
from cmer.registry import METHOD_OPTIONS

LITE = {"image_model": "tf_efficientnet_lite0", "image_weights": "lite"}


# --- words ------------------------------------------------------------------------------------------------------------


def test_words_of_five_train_captions_are_known() -> None:
    words = Vocabulary(["A pond."] * 3 + ["a  POND, two ponds"] * 2 + ["a boat"] * 4)
    assert words.size == 3  # a, pond, and everything else
    tokens = words.tokenize(["a pond", "pond boat", "", "!"])
    assert tokens.ids.tolist() == [[1, 2], [2, 0], [0, 0], [0, 0]]
    assert tokens.mask.tolist() == [[True, True], [True, True], [True, False], [True, False]]
    assert Vocabulary([]).size == 1350


def test_unknown_words_have_the_zero_vector() -> None:
    gru = WordGru(5, 4, 3, dropout=0.0)
    assert not gru.words.weight[0].any()
    gru(Tokens(torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool))).sum().backward()
    assert not gru.words.weight.grad[0].any() and gru.words.weight.grad[1].any()


@pytest.mark.parametrize("biases", ["input", "both", "none"])
def test_the_gru_reads_one_word_after_the_other(biases) -> None:
    torch.manual_seed(0)
    gru = WordGru(9, 4, 3, dropout=0.5, biases=biases).eval()
    ids, lengths = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [8, 0, 0, 0]]), [4, 2, 1]
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        states = gru(Tokens(ids, mask))
        for row, length in enumerate(lengths):
            expected = naive_states(gru, ids[row, :length])
            assert torch.allclose(states[row, :length], expected, atol=1e-6) and not states[row, length:].any()
            assert torch.allclose(last_state(states, mask)[row], expected[-1], atol=1e-6)
    trained = {name for name, p in gru.gru.named_parameters() if p.requires_grad and "bias" in name}
    assert biases != "input" or not gru.gru.bias_hh_l0.any()
    assert trained == {"input": {"bias_ih_l0"}, "both": {"bias_ih_l0", "bias_hh_l0"}, "none": set()}[biases]


def test_both_directions_are_averaged() -> None:
    torch.manual_seed(0)
    gru = WordGru(9, 4, 3, dropout=0.0, bidirectional=True, biases="both").eval()
    ids, mask = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([[True] * 3, [True, True, False]])
    back = WordGru(9, 4, 3, dropout=0.0, biases="both")
    back.words = gru.words
    own = {name.removesuffix("_reverse"): t for name, t in gru.gru.state_dict().items() if name.endswith("_reverse")}
    back.gru.load_state_dict(own)
    with torch.no_grad():
        states = gru(Tokens(ids, mask))
        for row, length in enumerate((3, 2)):
            words = ids[row, :length]
            expected = (naive_states(gru, words) + naive_states(back, words.flip(0)).flip(0)) / 2
            assert torch.allclose(states[row, :length], expected, atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_variational_dropout_drops_the_same_components_of_all_words(shared) -> None:
    gru = WordGru(3, 200, 2, dropout=0.25, shared_mask=shared)
    torch.nn.init.ones_(gru.words.weight)
    seen = []
    gru.gru.register_forward_pre_hook(lambda _module, args: seen.append(args[0].data.view(2, 3, 200).transpose(0, 1)))
    tokens = Tokens(torch.ones(3, 2, dtype=torch.long), torch.ones(3, 2, dtype=torch.bool))
    gru.train()(tokens)
    (vectors,) = seen  # packed: the first words of all texts, then their second ones
    assert torch.equal(vectors[:, 0], vectors[:, 1]) == shared and not torch.equal(vectors[0], vectors[1])
    assert vectors.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert 0.15 < (vectors == 0).float().mean() < 0.35


# --- the CNN ----------------------------------------------------------------------------------------------------------


def test_the_lite_cnn_is_the_image_tower_of_the_lite_backbone() -> None:
    cnn = CnnStages("tf_efficientnet_lite0", "lite", 64).eval()
    lite = build_backbone(LiteOptions(kind="lite", printed="lite", size=64))
    assert cnn.channels == [16, 24, 40, 112, 320] and cnn.preprocess.size == 64
    with torch.no_grad():
        maps, features = cnn(pixels(2)), lite.encode_images(pixels(2), [5, 10])
    for found, block in ((maps[3], 5), (maps[4], 10)):
        assert torch.allclose(found.flatten(2).transpose(1, 2), features.blocks[block][:, 1:], atol=1e-3)
    assert [x.shape[-1] for x in maps] == [32, 16, 8, 4, 2]


@pytest.mark.parametrize("layout", ["plain", "wrapped", "safetensors"])
def test_weights_come_from_a_local_file_without_its_classifier(tmp_path, layout) -> None:
    torch.manual_seed(7)
    given = timm.create_model("test_resnet").state_dict()
    file = tmp_path / ("weights.safetensors" if layout == "safetensors" else "weights.pth")
    if layout == "safetensors":
        save_file(given, file)
    else:
        wrapped = {"state_dict": {f"module.{name}": tensor for name, tensor in given.items()}, "epoch": 3}
        torch.save(given if layout == "plain" else wrapped, file)
    found = CnnStages("test_resnet", str(file), 64).net.state_dict()
    assert set(given) - set(found) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(found[name], given[name]) for name in found)


def test_a_cnn_that_cannot_be_had_is_named(tmp_path) -> None:
    other = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, other)
    deeper = timm.create_model("test_resnet").state_dict() | {"layer1.1.conv1.weight": torch.zeros(3)}
    torch.save(deeper, tmp_path / "deeper.pth")
    for name, weights, message in (
        ("resnet7", None, "timm has no 'resnet7'"),
        ("vit_tiny_patch16_224", None, "vit_tiny_patch16_224"),
        ("test_resnet", str(other), "they are another model's"),
        ("test_resnet", str(tmp_path / "deeper.pth"), r"another model's \(unexpected layer1.1.conv1.weight\)"),
        ("test_resnet", str(tmp_path / "none.pth"), "none.pth"),
    ):
        with pytest.raises(UserError, match=message):
            CnnStages(name, weights, 64)


def test_a_frozen_cnn_keeps_its_statistics_and_gets_no_gradient() -> None:
    method = system("swan", train_cnn=False, image_weights="lite", image_model=LITE["image_model"]).train()
    before = {name: tensor.clone() for name, tensor in method.cnn.state_dict().items()}
    assert method.training and not any(module.training for module in method.cnn.net.modules())
    losses(method)["triplet"].backward()
    assert not any(p.requires_grad or p.grad is not None for p in method.cnn.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.cnn.state_dict().items())
    assert all(parameter.grad is not None for parameter in method.image.parameters())


# --- settings ---------------------------------------------------------------------------------------------------------


def test_published_sizes_need_a_gpu_and_smaller_ones_say_so() -> None:
    for name in ("amfmn", "hvsa", "swan", "mcrn"):
        published = METHOD_OPTIONS.get(name)()
        assert published.gpu and published.differences() == {} and published.variant_title() is None
        assert published.without_weights().image_weights is None
        assert published.towers == ("ResNet-50" if name == "swan" else "ResNet-18")
    small = AmfmnOptions(**(SMALL | LITE))
    assert not small.gpu and small.without_weights() is small and small.towers == "own towers"
    assert small.differences() == {
        "image": "64 pixels, tf_efficientnet_lite0 (lite weights)",
        "text": "GRU of 16 on words of 12",
    }
    assert AmfmnOptions(text_model="minilm").differences() == {"text": "minilm"}
    assert AmfmnOptions(image_weights=None).differences() == {"image": "256 pixels, resnet18.tv_in1k (random weights)"}


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValidationError, match="lite needs `image_model: tf_efficientnet_lite0`"):
        AmfmnOptions(image_weights="lite")
    with pytest.raises(ValidationError, match="a random CNN needs `train_cnn: true`"):
        SwanOptions(image_weights=None)


# --- every system -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_trained_tensor_gets_a_gradient_and_no_frozen_one(name) -> None:
    method = system(name).train()
    sum(losses(method).values()).backward()
    missing = {n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()}
    assert missing == {n for n, _ in method.named_parameters() if n.endswith("bias_hh_l0") and name != "swan"}
    statistics = {n for n, _ in method.named_buffers() if "running" in n}
    assert set(method.trained()) == {n for n, _ in method.named_parameters()} - missing | statistics


@pytest.mark.parametrize("name", SYSTEMS)
def test_rows_are_images_and_columns_are_texts(name) -> None:
    method, order = system(name), [2, 0, 3, 1]
    found = scores(method, pixels(3), TEXTS)
    assert found.shape == (3, 4) and found.std() > 1e-5
    assert torch.allclose(scores(method, pixels(3), [TEXTS[i] for i in order]), found[:, order], atol=1e-5)
    other = pixels(3)
    other[1] = other[1].flip(-1) + 1
    moved = (scores(method, other, TEXTS) - found).abs().amax(dim=1)
    assert (moved > 1e-5).tolist() == [False, True, False]


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_text_scores_the_same_beside_longer_ones(name) -> None:
    method = system(name)
    alone = torch.cat([scores(method, pixels(2), [text]) for text in TEXTS], dim=1)
    assert torch.allclose(scores(method, pixels(2), TEXTS), alone, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_equal_texts_are_no_negatives_of_each_other(name) -> None:
    """With all texts equal there is no negative left: nothing of the triplet loss remains."""
    method = system(name).train()
    same = PairIds(torch.arange(4), torch.zeros(4), torch.zeros(4))
    part = "alignment" if name == "hvsa" else "triplet"
    with torch.no_grad():
        assert losses(method)[part] > 0 and losses(method, same)[part] == 0


def test_the_vocabulary_is_that_of_the_train_captions() -> None:
    method = system("amfmn")
    assert method.vocabulary.size == 1 + len({word for text in CAPTIONS for word in text.split()})
    assert len(encoded(method)[1]) == 4
