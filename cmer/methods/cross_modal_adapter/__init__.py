"""Adapters that the two towers partly share."""
