"""Losses and the negative queue."""
