"""Losses of a batch of matching pairs, one module each; a config names them as `loss`."""
