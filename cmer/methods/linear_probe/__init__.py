"""Linear maps on the frozen embeddings."""
