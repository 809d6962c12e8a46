"""Every method against its equation written out for one item at a time, with all trained weights off their start."""

import naive
import pytest
import torch
import torch.nn.functional as F
from naive import linear
from torch import nn

from cmer.backbones.base import BlockSpec, Features
from cmer.backbones.build import build as build_backbone
from cmer.backbones.tiny.options import TinyOptions
from cmer.config.backbones import FeatureOptions
from cmer.losses.batch.contrastive import contrastive
from cmer.losses.hinge import queue_hinge
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.methods.layers.side_branch import SideBranch
from cmer.registry import METHOD_OPTIONS

TEXTS = ["a red plane", "two boats at a pier", "a pond"]
META = PairIds(torch.arange(3), torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
STEP = StepInfo(0, 1)


def tiny():
    return build_backbone(TinyOptions(kind="tiny", printed="tiny"))


def moved(module, std=0.3):
    """The module with everything that it trains drawn anew."""
    torch.manual_seed(7)
    for parameter in module.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=std)
    return module


def method_of(name, **options):
    tower = tiny()
    given = METHOD_OPTIONS.get(name)(**options)
    features = FeatureOptions(blocks=[0, 1], text_blocks=[0, 1])
    return moved(build(name, given, Context(tower.shapes, features, tower, [], 0)))


def pixels():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def unit(rows):
    stacked = torch.stack(rows)
    return stacked / stacked.norm(dim=1, keepdim=True)


@torch.no_grad()
def compare(method, image_parts, text_parts, tower=None):
    """The method's embeddings are those of the plain towers with these functions on their sub-layers' outputs."""
    tower = tower or tiny()
    tokens = tower.tokenize(TEXTS)
    ids = [row[mask] for row, mask in zip(tokens.ids, tokens.mask, strict=True)]
    images = unit([naive.encode_image(tower, image, *image_parts) for image in pixels()])
    texts = unit([naive.encode_text(tower, row, *text_parts) for row in ids])
    method.eval()
    assert torch.allclose(method.encode_images(pixels()), images, atol=1e-5)
    assert torch.allclose(method.encode_texts(tokens), texts, atol=1e-5)
    plain = unit([naive.encode_image(tiny(), image) for image in pixels()])
    assert not torch.allclose(images, plain, atol=1e-2)


def bottleneck(adapter, x):
    return linear(F.gelu(linear(x, adapter.down)), adapter.up)


def test_houlsby_adapts_the_output_of_both_sub_layers() -> None:
    method = method_of("clip_adapter", preset="houlsby64")

    def parts(first):
        def attended(block, y):
            return y + bottleneck(method.adapters[first + 2 * block], y)

        def mapped(block, x, z):
            return z + bottleneck(method.adapters[first + 2 * block + 1], z)

        return attended, mapped

    compare(method, parts(0), parts(4))


def test_paper_count_adapts_the_output_of_the_mlp_alone() -> None:
    method = method_of("clip_adapter", preset="paper_count")
    assert all(adapter.down.bias is None and adapter.up.bias is None for adapter in method.adapters)
    assert [len(adapter.down.weight) for adapter in method.adapters] == [105, 105, 90, 90]

    def parts(first):
        return naive.plain_attended, lambda block, x, z: z + bottleneck(method.adapters[first + block], z)

    compare(method, parts(0), parts(2))


def partly_shared(adapter, shared, activation, x):
    """Own channels first, then as many of the shared map as fit into half of the width."""
    z, own = activation(linear(x, adapter.down)), x.shape[-1] - min(len(shared.bias), x.shape[-1] // 2)
    return torch.cat([linear(z, adapter.own), linear(z, shared)[..., : x.shape[-1] - own]], dim=-1)


@pytest.mark.parametrize("preset", ["official", "paper_count"])
def test_cross_modal_adapters_share_channels_between_the_towers(preset) -> None:
    method = method_of("cross_modal_adapter", preset=preset)

    def adapted(tower, part, block, y):
        name = f"{part}_{block}"
        own, other = ("image_64", "text_48") if preset == "paper_count" else (f"image_{name}", f"text_{name}")
        adapter = method.adapters[own if tower == "image" else other]
        return y + partly_shared(adapter, method.adapters[own].shared, F.gelu, y)

    def parts(tower):
        return (
            lambda block, y: adapted(tower, "attention", block, y),
            lambda block, x, z: adapted(tower, "mlp", block, z),
        )

    compare(method, parts("image"), parts("text"))


def test_pe_rsitrs_adapter_is_parallel_to_the_mlp() -> None:
    """x = x' + MLP(LN x') + A(x'), one A per tower for all blocks."""
    method = method_of("pe_rsitr", bottleneck=10, shared=12)
    shared = method.adapters["image_64"].shared

    def parts(name):
        return naive.plain_attended, lambda _, x, z: z + partly_shared(method.adapters[name], shared, F.relu, x)

    compare(method, parts("image_64"), parts("text_48"))


@pytest.mark.parametrize(("options", "share"), [({}, 0.5), ({"dropout": 0.2}, 0.2)])
def test_pe_rsitr_drops_half_of_its_bottleneck_in_training_and_nothing_in_evaluation(options, share) -> None:
    method = method_of("pe_rsitr", **options)
    for adapter in method.adapters.values():
        seen = {}
        adapter.down.register_forward_hook(lambda _m, _a, output, seen=seen: seen.update(down=output))
        adapter.own.register_forward_pre_hook(lambda _m, args, seen=seen: seen.update(z=args[0]))
        x = torch.randn(200, adapter.down.in_features)
        adapter.eval()(x)
        assert torch.equal(seen["z"], seen["down"].relu())
        method.train()
        adapter(x)
        active = seen["down"] > 0
        dropped = active & (seen["z"] == 0)
        assert dropped.sum() / active.sum() == pytest.approx(share, abs=0.05)
        assert torch.allclose(seen["z"][~dropped], seen["down"].relu()[~dropped] / (1 - share))


@pytest.mark.parametrize("positives", [False, True])
def test_pe_rsitrs_loss_compares_towers_and_both_passes_of_each(positives) -> None:
    """Texts that match another image are positives in both losses that have texts for candidates."""
    method = method_of("pe_rsitr", intra_weight=0.3, soft_multi_positive=positives)
    images, texts = (tuple(F.normalize(torch.randn(2, 3, 32), dim=-1)) for _ in range(2))
    losses = method.losses(images, texts, META, None, STEP)
    scale, soft = method.heads.log_scale.exp(), META.positives() if positives else None
    assert losses == {
        "batch": contrastive(images[0], texts[0], scale, soft),
        "images": 0.3 * contrastive(images[0], images[1], scale),
        "texts": 0.3 * contrastive(texts[0], texts[1], scale, soft),
    }


@torch.no_grad()
def merge_lora(method, tower, *parts):
    """Add B A to every linear map of these transformers of a plain tower."""

    def add(weight, layer):
        up, down = (factor["default"].weight for factor in (layer.lora_B, layer.lora_A))
        assert down.shape[0] == 3
        weight += up @ down

    for part in parts:
        adapted = method.backbone.model.get_submodule(part).resblocks
        for plain, block in zip(tower.model.get_submodule(part).resblocks, adapted, strict=True):
            add(plain.attn.in_proj_weight, block.attn)
            add(plain.attn.out_proj.weight, block.attn.base_layer.out_proj)
            add(plain.mlp.c_fc.weight, block.mlp.c_fc)
            add(plain.mlp.c_proj.weight, block.mlp.c_proj)
    return tower


def test_lora_adds_the_product_of_its_factors_to_every_linear_map_of_both_towers() -> None:
    method = method_of("clip_lora", lora_rank=3)
    compare(method, (), (), merge_lora(method, tiny(), "visual.transformer", "transformer"))


@pytest.mark.parametrize(("name", "ending"), [("clip_bitfit", "bias"), ("single_language", "")])
def test_tuned_weights_are_the_towers_own(name, ending) -> None:
    method, tower = method_of(name), tiny()
    weights = dict(method.backbone.named_parameters())
    with torch.no_grad():
        for key, parameter in tower.named_parameters():
            if key.endswith(ending):
                assert not torch.equal(parameter, weights[key])
                parameter.copy_(weights[key])
    compare(method, (), (), tower)


def test_linear_probe_maps_the_unit_embeddings() -> None:
    method, pooled = method_of("linear_probe"), torch.randn(3, 32)
    for encode, layer in ((method.encode_images, method.image), (method.encode_texts, method.text)):
        expected = unit([layer.weight @ (x / x.norm()) + layer.bias for x in pooled])
        assert torch.allclose(encode(Features(pooled)), expected, atol=1e-6)


def test_zero_shot_is_the_unit_embedding_and_trains_nothing() -> None:
    method, pooled = method_of("zero_shot"), torch.randn(3, 32)
    for encode in (method.encode_images, method.encode_texts):
        assert torch.allclose(encode(Features(pooled)), unit(list(pooled)), atol=1e-6)
    assert method.count() == 0 and method.losses(pooled, pooled, META, None, STEP) == {}


def cmer(**options):
    return method_of("cmer", hidden=12, heads=3, text="side_branch", **options)


@torch.no_grad()
@pytest.mark.parametrize("field", [1, 2, 3, 4])
def test_cmers_image_is_the_normalised_sum_of_tower_and_side_branch(field) -> None:
    """A field of 3 does not divide the grid of 4: the regions at its edges are smaller."""
    method, features = cmer(focus_field=field).eval(), tiny().encode_images(pixels(), [0, 1])
    pooled, blocks = features.pooled, [features.blocks[0], features.blocks[1]]
    branches = [naive.side_branch(method.image_branch, [b[i] for b in blocks], [4, 4]) for i in range(3)]
    expected = unit([x / x.norm() + q for x, q in zip(pooled, branches, strict=True)])
    found = method.encode_images(features)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, unit(list(pooled)), atol=1e-2)


@torch.no_grad()
def test_cmers_text_branch_attends_over_the_whole_caption() -> None:
    method, tower = cmer().eval(), tiny()
    features = tower.encode_texts(tower.tokenize(TEXTS), [0, 1])
    assert features.mask.sum(dim=1).unique().numel() > 1
    branches = [
        naive.side_branch(method.text_branch, [features.blocks[b][i][features.mask[i]] for b in (0, 1)], [0, 0])
        for i in range(3)
    ]
    expected = unit([s / s.norm() + q for s, q in zip(features.pooled, branches, strict=True)])
    assert torch.allclose(method.encode_texts(features), expected, atol=1e-5)


@torch.no_grad()
def test_cmers_text_with_lora_is_that_of_the_adapted_text_tower_alone() -> None:
    method = method_of("cmer", hidden=12, heads=3, text="lora", lora_rank=3, focus_adapter=False).eval()
    tower = merge_lora(method, tiny(), "transformer")
    tokens, features = tower.tokenize(TEXTS), tiny().encode_images(pixels())
    texts = [naive.encode_text(tower, row[mask]) for row, mask in zip(tokens.ids, tokens.mask, strict=True)]
    assert torch.allclose(method.encode_texts(tokens), unit(texts), atol=1e-5)
    assert torch.allclose(method.encode_images(features), unit(list(features.pooled)), atol=1e-5)
    assert not any("visual" in name for name in method.trained())


@torch.no_grad()
@pytest.mark.parametrize("has_cls", [True, False])
def test_a_side_branch_averages_where_the_grid_halves(has_cls) -> None:
    specs = [BlockSpec(grid=grid, width=width, has_cls=has_cls) for grid, width in ((4, 6), (4, 6), (2, 9))]
    branch = moved(SideBranch(specs, [0, 2], 8, 2, 2, 5))
    blocks = {0: torch.randn(3, 16 + has_cls, 6), 2: torch.randn(3, 4 + has_cls, 9)}
    expected = [naive.side_branch(branch, [blocks[0][i], blocks[2][i]], [4, 2]) for i in range(3)]
    assert torch.allclose(branch(Features(torch.empty(3, 5), blocks)), torch.stack(expected), atol=1e-5)


@torch.no_grad()
def test_more_images_than_a_part_holds_are_branched_alike() -> None:
    branch = moved(SideBranch([BlockSpec(grid=2, width=6, has_cls=True)], [0], 8, 2, 2, 5))
    block = torch.randn(130, 5, 6)
    alone = torch.cat([branch(Features(torch.empty(1, 5), {0: row[None]})) for row in block])
    assert torch.allclose(branch(Features(torch.empty(130, 5), {0: block})), alone, atol=1e-5)


@pytest.mark.parametrize("positives", [False, True])
def test_cmers_loss_is_the_batch_loss_and_the_weighted_queue_loss(positives) -> None:
    chosen = {"queue_weight": 0.3, "margin": 0.1, "difficulty": 0.7, "soft_multi_positive": positives}
    method, draw = cmer(queue_batches=2, **chosen), torch.Generator().manual_seed(5)
    images, texts, past = (F.normalize(torch.randn(3, 32, generator=draw), dim=-1) for _ in range(3))
    memory = method.memory(3)
    memory.enqueue(past, past.flip(0), PairIds(torch.arange(3) + 5, torch.arange(3) + 5, torch.tensor([3, 4, 5])))
    losses = method.losses(images, texts, META, memory, STEP)
    soft = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 1]]).bool() if positives else None
    assert set(losses) == {"batch", "queue"}
    assert losses["batch"] == contrastive(images, texts, method.heads.log_scale.exp(), soft)
    assert losses["queue"] == 0.3 * queue_hinge(images, texts, META, memory, 0.1, 0.7)
    assert set(method.losses(images, texts, META, None, STEP)) == {"batch"}
