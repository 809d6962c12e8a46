"""CMER: a side branch beside the frozen image tower, recycled negatives, scene prompts."""
