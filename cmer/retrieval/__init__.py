"""Embedding, similarity, recall and label protocols."""

MODULES = ("cmer.training.embedding",)
"""What every embedding of a test split executes besides its method and its backbone: the roots of its code digest."""
EVALUATION = ("cmer.retrieval.evaluate",)
"""What every evaluation executes besides its reranker: the root of its code digest."""
