"""MCRN: towers of several modalities and a transfer module that they share."""
