"""open_clip's models under their published names: preprocessing, tokenizer, shapes; and those that are refused."""

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import nn

from cmer.backbones.build import build
from cmer.backbones.open_clip.model import OpenClip
from cmer.backbones.open_clip.options import OpenClipOptions
from cmer.errors import UserError


@pytest.mark.parametrize(
    "tag", [("ViT-B-16-SigLIP2", "webli"), ("MobileCLIP2-S0", "dfndr2b"), ("ViT-B-32", "laion2b_e16")]
)
def test_preprocessing_is_that_of_the_weights(tag) -> None:
    given = open_clip.get_pretrained_cfg(*tag) | {"size": 32}
    model = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
        text_cfg={"width": 32, "heads": 2, "layers": 1},
    )
    model.visual.preprocess_cfg = given
    backbone = adopted(model)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8))
    keys = ("mean", "std", "interpolation", "resize_mode")
    theirs = open_clip.image_transform(32, is_train=False, **{key: given[key] for key in keys})(image)
    ours = backbone.preprocess.normalise(backbone.preprocess.square(image))
    assert torch.allclose(ours, theirs, atol=1e-5)


def adopted(model) -> OpenClip:
    """The model as a backbone, without the way by a name."""
    backbone = OpenClip.__new__(OpenClip)
    nn.Module.__init__(backbone)
    backbone._adopt(model, open_clip.SimpleTokenizer())
    return backbone


def test_a_tokenizer_that_cannot_be_had_is_an_error(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"the tokenizer of ViT-B-16-SigLIP2; .*`hf download timm/ViT-B-16-SigLIP2 "):
        build(OpenClipOptions(kind="open_clip", model="ViT-B-16-SigLIP2"))


def test_other_towers_are_refused() -> None:
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
    text = {"width": 32, "heads": 2, "layers": 1}
    with pytest.raises(UserError, match="plain text transformer"):
        adopted(open_clip.CustomTextCLIP(32, vision, text | {"scale_fc": True}))
    with pytest.raises(UserError, match="ViT or FastViT as image tower can serve as backbone, not ConvNeXt"):
        adopted(open_clip.CLIP(32, {"timm_model_name": "convnext_atto", "image_size": 32}, text))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks", "dim", "linears", "sites"),
    [
        ("ViT-B-16-SigLIP2", [(14, 768, False)] * 12, 768, 48, 24),
        ("PE-Core-B-16", [(14, 768, True)] * 12, 1024, 48, 24),
        ("coca_ViT-B-32", [(7, 768, True)] * 12, 512, 36, 24),
        ("MobileCLIP2-S0", [(64, 64, False), (32, 128, False), (16, 256, False), (8, 512, False)], 512, None, 22),
    ],
)
def test_the_published_models(name, blocks, dim, linears, sites) -> None:
    torch.manual_seed(0)
    backbone = adopted(open_clip.create_model(name)).freeze()
    shapes = backbone.shapes
    assert [(spec.grid, spec.width, spec.has_cls) for spec in shapes.blocks] == blocks
    assert shapes.image_dim == shapes.text_dim == dim
    points = backbone.attachment_points()
    assert linears in (None, len(points.image_linears)) and len(points.image_sites) == sites
    with torch.no_grad():
        image = backbone.encode_images(
            torch.randn(1, 3, backbone.preprocess.size, backbone.preprocess.size), range(len(blocks))
        )
    assert [tuple(x.shape[1:]) for x in image.blocks.values()] == [(s.tokens, s.width) for s in shapes.blocks]
    assert image.pooled.shape == (1, dim)
