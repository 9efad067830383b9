"""Open the image store that a URL names. Only the library that this store needs is imported."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, unquote

from storage.images.blobs import Blobs


def open_blobs(url: str) -> Blobs:
    """Open `file://FOLDER` or `s3://BUCKET[/PREFIX][?region=REGION]` without connecting.

    The folder's path is absolute. Raises ImportError if boto3 is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        from storage.images.folder import ImageFolder

        return ImageFolder(Path(rest))
    from storage.images.bucket import ImageBucket

    path, _, query = rest.partition("?")
    bucket, _, prefix = path.partition("/")
    return ImageBucket(bucket, unquote(prefix.strip("/")), parse_qs(query).get("region", [None])[0])
