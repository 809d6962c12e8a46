"""Frozen encoders behind one interface."""
