"""Extractions of the prepared squares."""

from pathlib import Path

from cmer.config.backbones import BackboneOptions
from cmer.data.images import open_images
from cmer.features.extract import extract
from cmer.features.store import FeatureSpec, Manifest


def run(prepared, cache: Path, backbone: BackboneOptions) -> Manifest:
    """Extract all images and texts with this backbone."""
    spec = FeatureSpec(dataset=prepared.options, backbone=backbone)
    images = open_images(prepared.options, prepared.folder)
    return extract(spec, prepared.pairs.files, prepared.pairs.sha256, images, prepared.texts, cache)
