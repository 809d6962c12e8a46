"""A linear probe whose embeddings are mixed with the frozen ones."""
