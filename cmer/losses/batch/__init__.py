"""Losses of a batch of matching pairs, one per module; a config selects one with `loss`."""
