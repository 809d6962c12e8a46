"""AMFMN: multi-scale visual attention, and texts gated by the image."""
