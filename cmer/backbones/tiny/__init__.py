"""A random CLIP of two blocks, for tests."""
