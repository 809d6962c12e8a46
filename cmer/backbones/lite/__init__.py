"""EfficientNet-Lite0 and MiniLM."""
