"""Precomputed rich texts."""
