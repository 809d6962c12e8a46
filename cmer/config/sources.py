"""Settings of the sources from which a published dataset can be fetched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cmer.config.base import Model, Several, Text


class LocalSource(Model):
    """A folder or an archive on this machine, in the dataset's published layout."""

    kind: Literal["local"]
    path: Text = Field(description="path of the folder or archive; environment variables are expanded")


class HubSource(Model):
    """A repository on the Hugging Face hub: an archive, or parquet files with filename, captions and image."""

    kind: Literal["hub"]
    repo: Text
    repo_type: Literal["dataset", "model"] = "dataset"
    revision: Text
    files: Several[Text]


class UrlSource(Model):
    """An archive on the web; the URL can also be a Google Drive sharing link."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="SHA-256 of the file; null: not published, not checked"
    )


class DvcSource(Model):
    """Earlier output of `cmer fetch`, restored from the DVC remote of a repository."""

    kind: Literal["dvc"]
    repo: Text = Field(default=".", description="folder or URL of the git repository")
    path: Text | None = Field(
        default=None,
        description="folder of images.tar and dataset.json in the repository; null: the same path as the output",
    )


Source = Annotated[LocalSource | HubSource | UrlSource | DvcSource, Field(discriminator="kind")]
