"""Datasets: readers, fetching, splits, labels and prompts, leaks, image loading, the sampler."""
