"""SWAN: multi-scale fusion of global and local image features, and gated attention over words."""
