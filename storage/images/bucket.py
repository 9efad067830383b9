"""Sealed images in a bucket of Amazon S3, or of a service with the same interface."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from storage.images.blobs import is_uuid
from storage.images.errors import ImageStoreUnavailable

T = TypeVar("T")
# All but the first come from files, programs, variables, and malformed credentials, which botocore does not check.
_FAILURES = (BotoCoreError, OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)
_LIMITS = Config(connect_timeout=3, read_timeout=20, retries={"total_max_attempts": 2})
_INVALID_URL = ("Invalid endpoint", "Invalid IPv6 URL")  # how botocore's and Python's errors for a wrong URL begin
_REMOVED_AT_ONCE = 1000  # the most that DeleteObjects accepts
_OTHER_SERVICE = "the response is not that of S3. Check AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and proxies"


class ImageBucket:
    """Stores objects with the key PREFIX/OWNER/NAME.

    boto3 finds the credentials, the region unless it is given and, for services other than Amazon's, the address
    (AWS_ENDPOINT_URL_S3).
    """

    def __init__(self, bucket: str, prefix: str, region: str | None) -> None:
        logging.getLogger("botocore").setLevel(logging.INFO)  # its debug lines contain requests
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._region = region
        self._opened: Any = None
        self._opening = threading.Lock()

    def write(self, owner: str, name: str, data: bytes) -> None:
        put = self._call(lambda client: client.put_object(Bucket=self._bucket, Key=self._key(owner, name), Body=data))
        _require("ETag", put)

    def read(self, owner: str, name: str) -> bytes | None:
        def get(client: Any) -> bytes | None:
            try:
                found = client.get_object(Bucket=self._bucket, Key=self._key(owner, name))
            except client.exceptions.NoSuchKey:
                return None
            _require("ETag", found)
            body: bytes = found["Body"].read()
            return body

        return self._call(get)

    def list_owners(self) -> Sequence[str]:
        pages = self._list_pages(self._prefix, Delimiter="/")
        folders = (entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ()))
        names = [folder.removeprefix(self._prefix).removesuffix("/") for folder in folders]
        return [name for name in names if is_uuid(name)]

    def measure(self) -> int:
        return sum(
            entry["Size"]
            for page in self._list_pages(self._prefix)
            for entry in page.get("Contents", ())
            if is_uuid(entry["Key"].removeprefix(self._prefix).partition("/")[0])
        )

    def list(self, owner: str) -> Iterator[str]:
        prefix = self._key(owner, "")
        for page in self._list_pages(prefix):
            for entry in page.get("Contents", ()):
                yield entry["Key"].removeprefix(prefix)

    def remove(self, owner: str, names: Sequence[str]) -> None:
        keys = [{"Key": self._key(owner, name)} for name in names]
        for first in range(0, len(keys), _REMOVED_AT_ONCE):
            self._remove_batch(keys[first : first + _REMOVED_AT_ONCE])

    def _remove_batch(self, keys: Sequence[dict[str, str]]) -> None:
        """Remove objects, and require the response to name each of them. Objects that do not exist are named, too."""
        deletion = {"Objects": keys, "Quiet": False}
        response = self._call(lambda client: client.delete_objects(Bucket=self._bucket, Delete=deletion))
        errors = response.get("Errors", ())
        if errors:
            raise ImageStoreUnavailable(f"images not removed: {len(errors)} ({errors[0].get('Code')})")
        if {entry.get("Key") for entry in response.get("Deleted", ())} != {key["Key"] for key in keys}:
            raise ImageStoreUnavailable(_OTHER_SERVICE)

    def _key(self, owner: str, name: str) -> str:
        return f"{self._prefix}{owner}/{name}"

    def _list_pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self._call(partial(self._list_page, Prefix=prefix, **options, **token))
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _list_page(self, client: Any, **options: str) -> dict[str, Any]:
        page: dict[str, Any] = client.list_objects_v2(Bucket=self._bucket, **options)
        _require("IsTruncated", page)
        return page

    def _call(self, operation: Callable[[Any], T]) -> T:
        """Run an operation. Raises ImageStoreUnavailable, with the error code of the response but not its text."""
        try:
            return operation(self._open())
        except ClientError as error:
            raise ImageStoreUnavailable(error.response.get("Error", {}).get("Code", "unknown error")) from None
        except _FAILURES as error:
            invalid = str(error).startswith(_INVALID_URL)
            reason = "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL is not a URL" if invalid else type(error).__name__
            raise ImageStoreUnavailable(reason) from None

    def _open(self) -> Any:
        """Return the client, which threads share. Raises the _FAILURES."""
        with self._opening:
            if self._opened is None:  # boto3's default session is not thread-safe
                self._opened = boto3.Session().client("s3", region_name=self._region, config=_LIMITS)
            return self._opened


def _require(member: str, response: dict[str, Any]) -> None:
    """Check for a member that every response of S3 has, because another server may respond to anything with a page.

    botocore ignores what it does not expect in a response. Raises ImageStoreUnavailable.
    """
    if member not in response:
        raise ImageStoreUnavailable(_OTHER_SERVICE)
