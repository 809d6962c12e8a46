"""Frozen encoders behind one interface, one folder per kind."""
