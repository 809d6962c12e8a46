"""A toy single-stream rival: reads pixels, and every image-caption pair is a forward pass of its own."""

import torch
from torch import nn

from cmer.methods.base import Method
from cmer.registry import METHODS


@METHODS.register("toy_pairs")
class ToyPairs(Method):
    cost = "pair"
    reads = "pixels"
    text_reads = "tokens"

    def __init__(self, shapes, options, features, backbone=None):
        super().__init__(shapes, options, features, backbone)
        self.embedding = nn.EmbeddingBag(49408, 16, mode="sum")
        self.network = nn.Sequential(nn.Linear(3 + 16, 32), nn.ReLU(), nn.Linear(32, 1))

    @classmethod
    def needs_backbone(cls, options):
        return True

    def encode_images(self, batch):
        return {"colour": batch.mean(dim=(2, 3))}  # a tree, not a tensor

    def encode_texts(self, batch):
        return {
            "ids": batch.ids.new_zeros(len(batch.ids), 77).scatter(
                1, torch.arange(batch.ids.shape[1]).expand_as(batch.ids), batch.ids
            )
        }

    def score(self, images, texts):
        n, m = len(images["colour"]), len(texts["ids"])
        words = self.embedding(texts["ids"])
        pairs = torch.cat([images["colour"][:, None].expand(n, m, -1), words.expand(n, m, -1)], dim=-1)
        return self.network(pairs).squeeze(-1)

    def losses(self, images, texts, meta, memory):
        scores = self.score(images, texts)
        return {"matching": nn.functional.cross_entropy(scores, torch.arange(len(scores)))}
