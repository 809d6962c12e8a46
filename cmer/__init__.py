"""cmer: memory-efficient text-image retrieval for remote sensing."""
