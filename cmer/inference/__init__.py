"""A trained run as a model in hand: it encodes images and texts of any source, ranks, and is exported."""
