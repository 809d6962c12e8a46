"""Index and search of a user's own images."""

MODULES = ("cmer.archive.shards",)
"""What embeds and joins shards of an archive, besides the model: the root of its code digest."""
