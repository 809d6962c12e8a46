"""Losses, and what they remember of past batches."""
