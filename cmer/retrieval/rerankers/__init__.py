"""Rerankers by name: each is a module that registers its settings and what it computes."""
