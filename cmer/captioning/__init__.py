"""Captioners: rich texts of images, at several granularities, from a file, a vision-language model or attributes."""

MODULES = ("cmer.captioning.write",)
"""What every captioning executes besides its captioner: the roots of its code digest."""
