"""Adapters that the two towers share in part."""
