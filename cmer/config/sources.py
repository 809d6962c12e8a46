"""Where a published dataset can be fetched from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cmer.config.base import Model


class LocalSource(Model):
    """A folder or an archive on this machine, in the dataset's published layout."""

    kind: Literal["local"]
    path: str = Field(description="environment variables are expanded")


class HubSource(Model):
    """Files of a repository on the Hugging Face hub: archives, or parquet with filename, captions and image."""

    kind: Literal["hub"]
    repo: str
    repo_type: Literal["dataset", "model"] = "dataset"
    revision: str
    files: Annotated[list[str], Field(min_length=1)]


class UrlSource(Model):
    """An archive on the web; a link to share a file of Google Drive is one too."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="of the file; null where nobody has published it"
    )


class DvcSource(Model):
    """What `cmer fetch` once wrote, from the DVC remote of a repository."""

    kind: Literal["dvc"]
    repo: str = Field(default=".", description="folder or URL of the git repository")
    path: str | None = Field(
        default=None, description="folder in it that holds images.tar and dataset.json; null: the one being written"
    )


Source = Annotated[LocalSource | HubSource | UrlSource | DvcSource, Field(discriminator="kind")]
