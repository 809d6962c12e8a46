"""Losses, and memories of past batches that they read."""
