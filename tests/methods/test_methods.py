import pytest
import torch

from cmer.backbones.base import Features
from cmer.backbones.build import build as build_backbone
from cmer.backbones.tiny.options import TinyOptions
from cmer.config.backbones import FeatureOptions
from cmer.errors import UserError
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.methods.cmer.options import CmerOptions
from cmer.methods.items import full_precision
from cmer.methods.layers.lora import add_lora
from cmer.methods.layers.settings import Projection
from cmer.methods.linear_probe.options import LinearProbeOptions
from cmer.methods.zero_shot.options import ZeroShotOptions
from cmer.profiling.parameters import count_parameters
from cmer.registry import METHODS

FEATURES = FeatureOptions(blocks=[0, 1], text_blocks=[0, 1])
META = PairIds(torch.arange(4), torch.arange(4), torch.tensor([0, 1, 0, 2]))


@pytest.fixture
def tower():
    return build_backbone(TinyOptions(kind="tiny", printed="tiny"))


def cmer(tower, **options):
    given = CmerOptions(hidden=24, heads=3, **options)
    return build("cmer", given, Context(tower.shapes, FEATURES, tower if given.text == "lora" else None, [], 0))


@pytest.mark.parametrize(
    ("backbone", "method", "count"),
    [
        ("ViT-B-32", "cmer", 2_719_552),
        ("ViT-B-16", "cmer", 2_719_552),
        ("ViT-L-14", "cmer", 4_504_512),
        ("ViT-H-14", "cmer", 9_135_296),
        ("ViT-B-32", "linear_probe", 525_312),
        ("ViT-B-32", "zero_shot", 0),
    ],
)
def test_trainable_parameters_are_the_papers(backbone, method, count) -> None:
    assert count_parameters(backbone, method) == count


def test_the_count_is_the_sum_of_its_parts() -> None:
    """Text LoRA 16 * 16 d per layer, W_down shared, 2 h^2 + 6 h + 96 an adapter, W_up, LayerNorm (ViT-B)."""
    h, d_v, d_t, e, layers = 192, 768, 512, 512, 12
    parts = 256 * d_t * layers + d_v * h + h + layers * (2 * h**2 + 6 * h + 96) + h * e + 2 * e
    assert parts == count_parameters("ViT-B-16", "cmer")


def test_the_image_branch_alone_has_the_focus_options(tower) -> None:
    method = cmer(tower, text="side_branch", focus_field=2, focus_dropout=0.3, focus_drop_path=0.6)
    assert (method.image_branch.dropout.p, method.image_branch.drop_path.p) == (0.3, 0.6)
    assert (method.text_branch.dropout.p, method.text_branch.drop_path.p) == (0.0, 0.0)
    assert [adapter.field for adapter in method.image_branch.adapters] == [2, 2]
    assert [adapter.field for adapter in method.text_branch.adapters] == [0, 0]


@pytest.mark.parametrize("text", ["lora", "side_branch"])
def test_training_starts_at_v1(tower, text) -> None:
    with torch.no_grad():
        image = tower.encode_images(torch.randn(3, 3, 32, 32), [0, 1])
        tokens = tower.tokenize(["a red plane", "two boats"])
        words = tower.encode_texts(tokens, [0, 1])
        plain = torch.nn.functional.normalize(image.pooled, dim=-1)
        method = cmer(tower, text=text)
        assert torch.allclose(method.encode_images(image), plain, atol=1e-6)
        found = method.encode_texts(tokens if text == "lora" else words)
        assert torch.allclose(found, torch.nn.functional.normalize(words.pooled, dim=-1), atol=1e-6)


@pytest.mark.parametrize("text", ["lora", "side_branch"])
def test_every_trained_tensor_gets_a_gradient_and_no_other(tower, text) -> None:
    method = cmer(tower, text=text)
    torch.manual_seed(1)
    for name, parameter in method.trained().items():  # off the zeros that block gradients in the first step
        if parameter.abs().max() == 0 or "norm.weight" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    image = tower.encode_images(torch.randn(4, 3, 32, 32), [0, 1])
    tokens = tower.tokenize(["a red plane", "two boats", "a pond", "many dense trees"])
    texts = tokens if text == "lora" else tower.encode_texts(tokens, [0, 1])
    losses = method.losses(method.encode_images(image), method.encode_texts(texts), META, None, STEP)
    sum(losses.values()).backward()
    with_gradient = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert with_gradient == set(method.trained())
    assert any("lora" in name for name in with_gradient) == (text == "lora")
    assert not any(p.grad is not None for p in tower.model.visual.parameters())


def test_lora_on_a_layer_that_is_no_linear_map_is_refused(tower) -> None:
    with pytest.raises(UserError, match=r"LoRA cannot adapt model\.ln_final: a \w*LayerNorm\w* is not a linear map"):
        add_lora(tower, ["model.ln_final"], 4)


def with_updates(tower):
    """A tower with LoRA whose updates are not zero, and what its weights are once they are merged by hand."""
    merged = build_backbone(TinyOptions(kind="tiny", printed="tiny"))
    add_lora(tower, tower.attachment_points().image_linears + tower.attachment_points().text_linears, 4)
    torch.manual_seed(2)
    for name, parameter in tower.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)

    def update(layer):
        return layer.lora_B["default"].weight @ layer.lora_A["default"].weight

    def blocks(model):
        return [*model.visual.transformer.resblocks, *model.transformer.resblocks]

    with torch.no_grad():
        for plain, adapted in zip(blocks(merged.model), blocks(tower.model), strict=True):
            plain.attn.in_proj_weight += update(adapted.attn)
            plain.attn.out_proj.weight += update(adapted.attn.base_layer.out_proj)
            plain.mlp.c_fc.weight += update(adapted.mlp.c_fc)
            plain.mlp.c_proj.weight += update(adapted.mlp.c_proj)
    return tower, merged


def test_lora_equals_the_merged_weights_and_leaves_the_frozen_ones(tower) -> None:
    before = build_backbone(TinyOptions(kind="tiny", printed="tiny")).model.transformer.resblocks[0].attn
    adapted, merged = with_updates(tower)
    tokens = adapted.tokenize(["a red plane", "two boats at a pier"])
    size = adapted.preprocess.size
    pixels = torch.randn(2, 3, size, size)
    plain = build_backbone(TinyOptions(kind="tiny", printed="tiny"))
    for encode in (lambda tower: tower.encode_texts(tokens), lambda tower: tower.encode_images(pixels)):
        with torch.no_grad():
            found = encode(adapted).pooled
            assert torch.allclose(found, encode(merged).pooled, atol=1e-5)
            assert not torch.allclose(found, encode(plain).pooled, atol=1e-2)
            with torch.autocast("cpu", torch.bfloat16):
                half = encode(adapted).pooled.float()
        assert (half - found).norm() < 0.05 * found.norm()
    after = adapted.model.transformer.resblocks[0].attn.base_layer
    assert torch.equal(after.in_proj_weight, before.in_proj_weight)
    assert torch.equal(after.out_proj.base_layer.weight, before.out_proj.weight)


def test_loras_gradient_is_the_slope(tower) -> None:
    adapted, _ = with_updates(tower)
    adapted.double()
    tokens = adapted.tokenize(["a red plane", "two boats at a pier"])
    weight = adapted.model.transformer.resblocks[0].attn.base_layer.out_proj.lora_B["default"].weight

    def loss():
        return adapted.encode_texts(tokens).pooled.pow(3).sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    with torch.no_grad():
        weight[0, 0] += 1e-4
        up = loss()
        weight[0, 0] -= 2e-4
        slope = (up - loss()) / 2e-4
    assert gradient[0, 0].item() == pytest.approx(slope.item(), rel=1e-4)


@pytest.mark.parametrize("text", ["lora", "side_branch"])
def test_losses_take_items_of_a_bfloat16_forward(tower, text) -> None:
    """What a GPU does: the encoders under autocast, the losses in full precision."""
    method = cmer(tower, text=text, queue_batches=1)
    image = tower.encode_images(torch.randn(4, 3, 32, 32), [0, 1])
    tokens = tower.tokenize(["a red plane", "two boats", "a pond", "many dense trees"])
    with torch.autocast("cpu", torch.bfloat16):
        texts = tokens if text == "lora" else tower.encode_texts(tokens, [0, 1]).to(torch.device("cpu"))
        items = full_precision((method.encode_images(image), method.encode_texts(texts)))
    memory = method.memory(4)
    memory.enqueue(items[0].detach(), items[1].detach(), META)
    total = sum(method.losses(*items, META, memory, STEP).values())
    total.backward()
    assert total.dtype == torch.float32 and torch.isfinite(total)


def test_a_side_branch_without_blocks_is_an_error(tower) -> None:
    with pytest.raises(UserError, match="no block to read"):
        build(
            "cmer",
            CmerOptions(text="side_branch"),
            Context(tower.shapes, FeatureOptions(blocks=[], text_blocks=[0]), None, [], 0),
        )


def test_v1_has_no_image_branch(tower) -> None:
    method = cmer(tower, focus_adapter=False)
    assert not method.image_blocks
    assert all("lora" in name for name in method.trained())


def test_the_queue_joins_the_loss_once_it_holds_something(tower) -> None:
    method = cmer(tower, text="side_branch", queue_batches=2)
    items = torch.nn.functional.normalize(torch.randn(4, 32), dim=-1)
    memory = method.memory(4)
    assert memory is not None and len(memory.images) == 8
    assert method.losses(items, items, META, memory, STEP)["queue"] == 0
    memory.enqueue(items, items, PairIds(torch.arange(4) + 10, META.texts, torch.tensor([5, 5, 6, 6])))
    assert method.losses(items, items, META, memory, STEP)["queue"] > 0
    assert cmer(tower, text="side_branch", queue_batches=0).memory(4) is None


def test_prompt_share_follows_the_options(tower) -> None:
    share = {"scene_prompt": True, "label_dropout": 0.0}
    assert cmer(tower, text="side_branch", **share).prompt_share() == 1
    assert cmer(tower, text="side_branch", **share | {"label_dropout": 0.5}).prompt_share() == 0.5
    assert cmer(tower, text="side_branch", **share | {"scene_prompt": False}).prompt_share() == 0


def test_linear_probe_starts_at_the_frozen_embeddings(tower) -> None:
    method = build("linear_probe", LinearProbeOptions(), Context(tower.shapes, FEATURES, None, [], 0))
    pooled = torch.randn(3, 32)
    plain = torch.nn.functional.normalize(pooled, dim=-1)
    assert torch.allclose(method.encode_images(Features(pooled)), plain, atol=1e-6)


def test_unaligned_towers_train_projections_and_temperature(tower) -> None:
    shapes = tower.shapes.model_copy(update={"aligned": False})
    options = LinearProbeOptions(projection=Projection(kind="mlp", dim=7, hidden=9))
    method = build("linear_probe", options, Context(shapes, FEATURES, None, [], 0))
    assert method.encode_images(Features(torch.randn(3, 32))).shape == (3, 7)
    assert {"heads.log_scale", "heads.image.0.running_var"} <= set(method.trained())
    constant = torch.ones(8, 32) * 3
    assert method.heads.image[0](constant + 1e-6 * torch.randn(8, 32)).abs().max() < 1e-3  # not blown up to unit size
    with pytest.raises(UserError, match="share a space"):
        build("zero_shot", ZeroShotOptions(), Context(shapes, FEATURES, None, [], 0))


def test_a_frozen_tower_inside_a_method_stays_in_eval_mode(tower) -> None:
    method = cmer(tower).train()
    assert method.training and not tower.training and not tower.model.transformer.training


def test_the_registry_knows_its_files_and_refuses_a_second() -> None:
    assert {"cmer", "linear_probe", "zero_shot"} <= set(METHODS.names())
    METHODS.get("zero_shot")
    with pytest.raises(ValueError, match="registered twice"):
        METHODS.register("zero_shot")(object)


STEP = StepInfo(0, 1)


def test_items_of_any_precision_are_scored_in_float32() -> None:
    found = full_precision({"vectors": torch.ones(2, 3, dtype=torch.bfloat16), "lengths": torch.ones(2).long()})
    assert (found["vectors"].dtype, found["lengths"].dtype) == (torch.float32, torch.int64)
