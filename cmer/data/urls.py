"""Data URLs, for pages that contain their pictures."""

from __future__ import annotations

import base64


def data_url(content: bytes, media_type: str) -> str:
    """A URL that contains the content itself."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
