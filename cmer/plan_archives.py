"""Archives in the workflow as functions of a config: specs, code digests and input files. Imports no torch."""

from __future__ import annotations

from cmer import archive as archives
from cmer.config.archives import Listing, ShardSpec
from cmer.config.places import is_local
from cmer.io import expand
from cmer.plan import Plan, as_json, digest_code


class ArchivePlan(Plan):
    """The workflow of a config, with its archives."""

    def listing_spec(self, archive: str) -> str:
        """Settings that the list of an archive's images depends on."""
        return as_json(self.config.archives[archive].model_dump(include=set(Listing.model_fields)))

    def shard_spec(self, archive: str) -> str:
        """Settings that the embedding of an archive's shards depends on, besides the model."""
        return as_json(self.config.archives[archive].model_dump(include=set(ShardSpec.model_fields)))

    def archive_code(self, archive: str) -> str:
        """Code digest of embedding and joining the shards of an archive."""
        run = self.config.archives[archive].run
        return digest_code(*archives.MODULES, *(self._modules(run) if run else []))

    def archive_run(self, archive: str) -> str:
        """The checkpoint, or the name of the model, that embeds an archive."""
        entry = self.config.archives[archive]
        if entry.run is not None:
            (dataset,) = self.config.run(entry.run).datasets
            return self.file(f"checkpoints/{dataset}/{entry.run}/seed{self.config.seeds[0]}.safetensors")
        name = str(entry.checkpoint)
        return str(expand(name)) if is_local(name) or name.endswith(".safetensors") else name

    def archive_model(self, archive: str) -> list[str]:
        """The files of the model that embeds an archive; none for a model that is known by its name."""
        run, source = self.config.archives[archive].run, self.archive_run(archive)
        return [source] * source.endswith(".safetensors") + (self.weights_of_run(run) if run else [])

    def archive_shards(self, archive: str) -> list[str]:
        """The embedded shards of an archive."""
        shards = range(self.config.archives[archive].shards)
        return [self.file(f"archives/{archive}/shards/{shard}.parquet") for shard in shards]

    def archive_store(self, archive: str) -> str:
        """The folder or URL of an archive."""
        store = self.config.archives[archive].store
        return store if "://" in store else str(expand(store))
