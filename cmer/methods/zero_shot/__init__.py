"""The frozen backbone without training."""
