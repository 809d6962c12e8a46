"""The progressive attention of PIR, over image tokens instructed by the scene and over words in cycles."""

from __future__ import annotations

from torch import Tensor, nn

from cmer.methods.pir.options import ATTENTION_HEADS

DROPOUT = 0.2


class AttentionLayer(nn.Module):
    """Attention and an MLP, each followed by residual and LayerNorm: y = LN(y + MHA(q, y, y)), LN(y + MLP(y)).

    The residual is the tokens that give keys and values, not the queries. With the tokens themselves as queries, this
    is self-attention.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, ATTENTION_HEADS, DROPOUT, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norm, self.mlp_norm, self.dropout = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(DROPOUT)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries [B, L or 1, d], tokens [B, L, d] and their mask [B, L] → tokens [B, L, d].

        A single query stands for L equal ones.
        """
        ignored = None if mask is None else ~mask
        seen = self.attention(queries, tokens, tokens, key_padding_mask=ignored, need_weights=False)[0]
        tokens = self.norm(tokens + self.dropout(seen))
        output: Tensor = self.mlp_norm(tokens + self.dropout(self.mlp(tokens)))
        return output


class ProgressiveAttention(nn.Module):
    """Cycles of self-attention, and cross-attention with mapped queries; then a linear map of the first token.

    Args:
        width: channels d.
        cycles: number of cycles, each with weights of its own.
    """

    def __init__(self, width: int, cycles: int) -> None:
        super().__init__()
        self.own = nn.ModuleList(AttentionLayer(width) for _ in range(cycles))
        self.cross = nn.ModuleList(AttentionLayer(width) for _ in range(cycles))
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(cycles))
        self.head = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, guide: Tensor | None = None) -> Tensor:
        """Tokens [B, L, d], their mask [B, L], and what gives the queries [B, d] → [B, d].

        Without a guide, the tokens that enter a cycle give its queries.
        """
        for own, cross, queries in zip(self.own, self.cross, self.maps, strict=True):
            given = tokens if guide is None else guide.unsqueeze(1)
            tokens = cross(queries(given), own(tokens, tokens, mask), mask)
        output: Tensor = self.head(tokens[:, 0])
        return output
