"""The systems that train within the towers: counts, what gets a gradient, where they start, each one's own part."""

import pytest
import torch
from baseline_cases import TEXTS, baseline, meta_count, pixels_of, tower_of
from torch import nn

from cmer.backbones.base import Site
from cmer.losses.batch.contrastive import contrastive
from cmer.losses.memory import PairIds
from cmer.methods.base import StepInfo
from cmer.methods.clip_adapter.options import ClipAdapterOptions
from cmer.methods.cross_modal_adapter.options import CrossModalAdapterOptions
from cmer.methods.layers.adapters import Adapter, SharedAdapter, attach_parallel, attach_serial
from cmer.methods.pe_rsitr.options import PeRsitrOptions
from cmer.profiling.parameters import count_parameters

BASELINES = ["clip_adapter", "clip_bitfit", "clip_lora", "cross_modal_adapter", "pe_rsitr", "single_language"]
STARTS_FROZEN = ["clip_adapter", "clip_bitfit", "clip_lora", "pe_rsitr", "single_language"]
META = PairIds(torch.arange(4), torch.arange(4), torch.tensor([0, 1, 0, 2]))
STEP = StepInfo(0, 1)


@pytest.mark.parametrize(
    ("backbone", "method", "count"),
    [
        ("ViT-B-32", "clip_lora", 3_932_160),
        ("ViT-B-16", "clip_lora", 3_932_160),
        ("ViT-L-14", "clip_lora", 8_650_752),
        ("ViT-B-32", "clip_adapter", 3_041_280),
        ("ViT-L-14", "clip_adapter", 6_819_840),
        ("ViT-B-16", "clip_bitfit", 171_008),
        ("ViT-L-14", "clip_bitfit", 374_528),
        ("ViT-B-32", "single_language", 151_277_313),
        ("ViT-B-32", "cross_modal_adapter", 164_208),
        ("ViT-B-32", "pe_rsitr", 161_088),
    ],
)
def test_counts_are_the_printed_ones(backbone, method, count) -> None:
    assert count_parameters(backbone, method) == count


def test_counts_of_the_other_presets() -> None:
    """Houlsby: two adapters a block of 2 * 64 d + 64 + d; the official cross-modal adapter: 24 sites of 21,632."""
    houlsby = 12 * 2 * sum(2 * 64 * d + 64 + d for d in (768, 512))
    assert meta_count("ViT-B-32", "clip_adapter", preset="houlsby64") == houlsby
    assert meta_count("ViT-B-32", "cross_modal_adapter", preset="official") == 519_168


def should_train(name, method):
    """What each system says it trains, told by name; heads where the towers share no space."""
    heads = {n for n, _ in method.named_parameters() if n.startswith("heads.")} if not method.aligned else set()
    parameters = {n for n, _ in method.named_parameters()}
    return (
        heads
        | {
            "clip_adapter": {n for n in parameters if n.startswith("adapters.")},
            "clip_bitfit": {n for n in parameters if n.startswith("backbone.") and n.endswith("bias")},
            "clip_lora": {n for n in parameters if "lora_" in n},
            "cross_modal_adapter": {n for n in parameters if n.startswith("adapters.")},
            "pe_rsitr": {n for n in parameters if n.startswith("adapters.")},
            "single_language": parameters,
        }[name]
    )


@pytest.mark.parametrize("kind", ["tiny", "lite"])
@pytest.mark.parametrize("name", BASELINES)
def test_gradients_reach_what_should_train_and_nothing_else(name, kind) -> None:
    method = baseline(name, kind)
    method.aligned = kind == "tiny"
    torch.manual_seed(1)
    for parameter in method.parameters():  # off the zeros that block gradients in the first step
        if parameter.requires_grad and parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.1)
    method.train()
    texts = method.backbone.tokenize(TEXTS)
    losses = method.losses(method.encode_images(pixels_of(method)), method.encode_texts(texts), META, None, STEP)
    sum(losses.values()).backward()
    reached = {n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    expected = should_train(name, method)
    assert reached == expected
    assert {n for n, p in method.named_parameters() if p.requires_grad} == expected
    assert method.count() == sum(p.numel() for n, p in method.named_parameters() if n in expected)


@pytest.mark.parametrize("kind", ["tiny", "lite"])
@pytest.mark.parametrize("name", STARTS_FROZEN)
def test_training_starts_at_the_frozen_model(name, kind) -> None:
    method, tower = baseline(name, kind).eval(), tower_of(kind)
    pixels, texts = pixels_of(method), tower.tokenize(TEXTS)
    with torch.no_grad():
        images = method.heads.images(tower.encode_images(pixels).pooled)
        words = method.heads.texts(tower.encode_texts(texts).pooled)
        assert torch.allclose(method.encode_images(pixels), images, atol=1e-5)
        assert torch.allclose(method.encode_texts(texts), words, atol=1e-5)


@pytest.mark.parametrize("kind", ["tiny", "lite"])
def test_sites_are_sub_layers_within_a_residual(kind) -> None:
    """What enters a site and what leaves it have one shape, its width, and both towers offer MLP sites."""
    tower = tower_of(kind)
    points = tower.attachment_points()
    shapes = {}

    def note(key, index):
        return lambda _module, *rest: shapes.__setitem__(key, rest[index])

    for site in points.image_sites + points.text_sites:
        tower.get_submodule(site.entry).register_forward_pre_hook(note((site, "in"), 0))
        tower.get_submodule(site.exit).register_forward_hook(note((site, "out"), 1))
    tower.encode_images(torch.randn(2, 3, tower.preprocess.size, tower.preprocess.size))
    tower.encode_texts(tower.tokenize(TEXTS))
    for site in points.image_sites + points.text_sites:
        entered, left = shapes[site, "in"][0], shapes[site, "out"]
        assert entered.shape == left.shape
        assert entered.shape[1 if site.channels_first else -1] == site.width
    assert {site.part for site in points.text_sites} == {"attention", "mlp"}
    assert any(site.part == "mlp" for site in points.image_sites)


class Residual(nn.Module):
    """x + exit(entry(x)), the smallest thing that has a site."""

    def __init__(self, channels_first: bool) -> None:
        super().__init__()
        self.entry = nn.Conv2d(6, 6, 1) if channels_first else nn.Linear(6, 6)
        self.exit = nn.Identity()

    def forward(self, x):
        return x + self.exit(self.entry(x))


@pytest.mark.parametrize("channels_first", [False, True])
def test_serial_and_parallel_adapters_add_where_they_say(channels_first) -> None:
    torch.manual_seed(0)
    adapter = Adapter(6, 3, bias=True)
    nn.init.normal_(adapter.up.weight)
    x = torch.randn(2, 6, 4, 4) if channels_first else torch.randn(2, 5, 6)

    def by_hand(z):
        z = z.movedim(1, -1) if channels_first else z
        z = nn.functional.gelu(z @ adapter.down.weight.T + adapter.down.bias) @ adapter.up.weight.T + adapter.up.bias
        return z.movedim(-1, 1) if channels_first else z

    site = Site(0, "mlp", "entry", "exit", 6, channels_first)
    for attach, inner in ((attach_serial, lambda plain, x: plain.entry(x)), (attach_parallel, lambda plain, x: x)):
        block = Residual(channels_first)
        y = block.entry(x)
        attach(block, site, adapter)
        assert torch.allclose(block(x), x + y + by_hand(inner(block, x)), atol=1e-5)


def test_shared_channels_come_last_and_are_one_tensor() -> None:
    shared = nn.Linear(4, 5)
    wide, narrow = SharedAdapter(20, shared, nn.ReLU()), SharedAdapter(6, shared, nn.ReLU())
    z = torch.relu(wide.down(x := torch.randn(3, 20)))
    assert torch.allclose(wide(x)[:, 15:], shared(z))
    assert torch.allclose(wide(x)[:, :15], wide.own(z))
    assert narrow.common == 3  # a narrow site shares half of its channels
    assert narrow(torch.randn(3, 6)).shape == (3, 6)


def test_official_cross_modal_adapter_shares_by_block() -> None:
    adapters = baseline("cross_modal_adapter", preset="official").adapters
    for block in (0, 1):
        for part in ("attention", "mlp"):
            assert adapters[f"image_{part}_{block}"].shared is adapters[f"text_{part}_{block}"].shared
    assert adapters["image_mlp_0"].shared is not adapters["image_mlp_1"].shared
    assert CrossModalAdapterOptions().preset == "paper_count"


@pytest.mark.parametrize("preset", ["official", "paper_count"])
def test_cross_modal_adapters_start_near_zero(preset) -> None:
    """Maps from a normal distribution of standard deviation 0.01, biases zero."""
    named = dict(baseline("cross_modal_adapter", preset=preset).adapters.named_parameters())
    weights = torch.cat([parameter.detach().flatten() for parameter in named.values() if parameter.ndim == 2])
    assert weights.std() == pytest.approx(0.01, rel=0.05) and weights.mean().abs() < 0.001
    assert all(not parameter.any() for parameter in named.values() if parameter.ndim == 1)


def test_houlsby_has_two_adapters_a_block_and_paper_count_one() -> None:
    assert len(baseline("clip_adapter", preset="houlsby64").adapters) == 2 * len(baseline("clip_adapter").adapters) == 8
    assert ClipAdapterOptions().preset == "paper_count"


def test_pe_rsitrs_loss_is_the_sum_of_three_and_its_second_pass_differs() -> None:
    method = baseline("pe_rsitr", intra_weight=0.5, dropout=0.0).train()
    images, texts = method.encode_images(pixels_of(method)), method.encode_texts(method.backbone.tokenize(TEXTS))
    losses = method.losses(images, texts, META, None, STEP)
    scale = method.heads.scale()
    assert losses["batch"] == contrastive(images[0], texts[0], scale)
    assert losses["images"] == 0.5 * contrastive(images[0], images[1], scale)
    assert losses["texts"] == 0.5 * contrastive(texts[0], texts[1], scale)
    assert not torch.allclose(images[0], images[1])
    assert not torch.allclose(texts[0], texts[1])
    plain = method.eval().encode_images(pixels_of(method))
    assert torch.allclose(plain, images[0], atol=1e-6)  # the dropout of the second pass is gone with it


def test_pe_rsitr_without_input_dropout_sees_twice_the_same() -> None:
    method = baseline("pe_rsitr", dropout=0.0, input_dropout=0.0).train()
    once, again = method.encode_images(pixels_of(method))
    assert torch.equal(once, again)
    assert PeRsitrOptions().input_dropout == 0.2


def test_full_fine_tuning_keeps_batchnorms_statistics() -> None:
    method = baseline("single_language", "lite").train()
    before = {name: buffer.clone() for name, buffer in method.backbone.named_buffers()}
    method.encode_images(pixels_of(method))
    assert all(torch.equal(buffer, before[name]) for name, buffer in method.backbone.named_buffers())
