"""Datasets: readers, the demo generator, splits, labels and prompts, image loading, the sampler."""
