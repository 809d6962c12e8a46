"""One adapter for all blocks of both towers."""
