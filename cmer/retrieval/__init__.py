"""Embedding, similarity, recall and label protocols."""
