"""IEFT."""
