"""Drawings of figures: the only modules of reporting, besides the report, that import matplotlib."""
