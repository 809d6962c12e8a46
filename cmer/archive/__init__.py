"""Index and search of a user's own images."""
