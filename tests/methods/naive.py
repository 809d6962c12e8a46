"""The towers and the side branch written out, one item at a time, for known answers of methods."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def norm(x, layer):
    """LayerNorm."""
    spread = (x - x.mean(dim=-1, keepdim=True)) / torch.sqrt(x.var(dim=-1, keepdim=True, unbiased=False) + layer.eps)
    return spread * layer.weight + layer.bias


def linear(x, layer):
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def attention(x, attn, causal):
    """Self-attention of [N, d]: the fused map, softmax in every head, the output map."""
    q, k, v = (x @ attn.in_proj_weight.T + attn.in_proj_bias).chunk(3, dim=-1)
    width = x.shape[-1] // attn.heads
    outputs = []
    for head in range(attn.heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / width**0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
        outputs.append(scores.softmax(dim=-1) @ v[:, part])
    return linear(torch.cat(outputs, dim=-1), attn.out_proj)


def transformer(x, blocks, causal, attended, mapped):
    """The blocks on [N, d]: x' = x + attended(l, attention(x)), then x = x' + mapped(l, x', MLP(x'))."""
    for number, block in enumerate(blocks):
        x = x + attended(number, attention(norm(x, block.ln_1), block.attn, causal))
        inner = F.gelu(linear(norm(x, block.ln_2), block.mlp.c_fc))
        x = x + mapped(number, x, linear(inner, block.mlp.c_proj))
    return x


def plain_attended(_number, y):
    return y


def plain_mapped(_number, _x, z):
    return z


def encode_image(tower, pixels, attended=plain_attended, mapped=plain_mapped):
    """The image embedding [e] of a tiny tower for [3, 32, 32], not normalised."""
    visual = tower.model.visual
    weight = visual.conv1.weight
    side = weight.shape[-1]
    cuts = range(0, pixels.shape[-1], side)
    patches = [(weight * pixels[:, r : r + side, c : c + side]).sum(dim=(1, 2, 3)) for r in cuts for c in cuts]
    x = torch.stack([visual.class_embedding, *patches]) + visual.positional_embedding
    x = transformer(norm(x, visual.ln_pre), visual.transformer.resblocks, False, attended, mapped)
    return norm(x[0], visual.ln_post) @ visual.proj


def encode_text(tower, ids, attended=plain_attended, mapped=plain_mapped):
    """The text embedding [e] of a tiny tower for token ids [L] that end with the end token, not normalised."""
    model = tower.model
    x = model.token_embedding.weight[ids] + model.positional_embedding[: len(ids)]
    x = transformer(x, model.transformer.resblocks, True, attended, mapped)
    return norm(x[-1], model.ln_final) @ model.text_projection


def regions_of(count, grid, field):
    """Groups of tokens that attend to each other, by place in their region: squares of patches, or the whole text."""
    if not field:
        return [dict(enumerate(range(count)))]
    first = count - grid**2
    regions = {}
    for row in range(grid):
        for column in range(grid):
            place = (row % field) * field + column % field
            regions.setdefault((row // field, column // field), {})[place] = first + row * grid + column
    return list(regions.values())


def focus_adapter(adapter, u, grid):
    """Equations 11-13 on the tokens of one item [N, h]; a token in no region, the class token, is not attended."""
    p = linear(norm(u, adapter.norm_attention), adapter.head)
    width = u.shape[-1] // adapter.heads
    f = u.clone()
    for region in regions_of(len(u), grid, adapter.field):
        for place, token in region.items():
            for head in range(adapter.heads):
                part = slice(head * width, (head + 1) * width)
                scores = []
                for other, key in region.items():
                    bias = adapter.bias[head, place, other] if adapter.field else 0
                    scores.append(p[token, part] @ p[key, part] / width**0.5 + bias)
                weights = torch.stack(scores).softmax(dim=0)
                for weight, key in zip(weights, region.values(), strict=True):
                    f[token, part] = f[token, part] + weight * p[key, part]
    return linear(norm(f, adapter.norm_output), adapter.output) + f


def halved(f, before, after):
    """Means over squares of patches; the class token stays."""
    first = len(f) - before**2
    square, ratio = f[first:].reshape(before, before, -1), before // after
    cells = [square[r : r + ratio, c : c + ratio].mean(dim=(0, 1)) for r in range(0, before, ratio)
             for c in range(0, before, ratio)]  # fmt: skip
    return torch.stack([*f[:first], *cells])


def side_branch(branch, outputs, grids):
    """q [e] of one item from the outputs [N, d] of its blocks; the grid of a text block is 0."""
    f, before = None, grids[0]
    for adapter, v, grid in zip(branch.adapters, outputs, grids, strict=True):
        u = linear(v, branch.down[str(v.shape[-1])])
        if f is not None:
            u = u + (f if grid == before else halved(f, before, grid))
        f, before = focus_adapter(adapter, u, grid), grid
    first = len(f) - before**2 if before else 0
    pooled = f[first:].mean(dim=0) + (f[0] if first else 0)
    return norm(linear(pooled, branch.up), branch.norm)
