"""The store of frozen block outputs."""
