"""How an image arrives: as a multipart field `file`, or as the body itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from api.errors import BadForm, MissingFile, UnsupportedBody
from api.http.middleware import exceeds, too_large
from model.imaging.bounds import MAX_BYTES

T = TypeVar("T")
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/tiff")
# They know who sends an image, and have memory for it, before they read it.
IMAGE_PATHS = ("/v1/predictions", "/predict-land-use", "/predict-land-use/")
# Room for the part's headers and boundaries around an image of the largest accepted size.
MAX_BODY_BYTES = MAX_BYTES + 64 * 1024
_MAX_FIELDS = 32
# A form may name any codec of Python's: `undefined` fails, `punycode` takes minutes for a megabyte.
_CHARSETS = frozenset({b"utf-8", b"us-ascii", b"iso-8859-1"})

_FILE_SCHEMA = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    },
    "encoding": {"file": {"contentType": ", ".join(IMAGE_TYPES)}},
}
_RAW_SCHEMA = {"schema": {"type": "string", "format": "binary"}}
MULTIPART_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": _FILE_SCHEMA}}}
MULTIPART_OR_RAW_BODY = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": _FILE_SCHEMA, **dict.fromkeys(IMAGE_TYPES, _RAW_SCHEMA)},
    }
}


def check_announced(request: Request) -> None:
    """Raises BodyTooLarge for a body that says it is; one that hides its length is counted while it is read."""
    if exceeds(request.headers, MAX_BODY_BYTES):
        raise too_large(MAX_BODY_BYTES)


async def read_multipart(request: Request) -> bytes:
    """The bytes of the field `file`. Raises UnsupportedBody, BadForm, MissingFile, BodyTooLarge."""
    if _media_type(request) != "multipart/form-data":
        raise UnsupportedBody("Send the image as the field `file` of a multipart/form-data body.")
    if _charset(request) not in _CHARSETS:
        raise BadForm("Name utf-8 as the form's charset, or none.")
    try:
        async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise MissingFile("The form has no file named `file`. Put the image there.")
            return await file.read()
    except HTTPException as error:
        if error.status_code != HTTPStatus.BAD_REQUEST:
            raise
        raise BadForm(f"The form cannot be read: {error.detail}") from error


async def read_image(request: Request) -> bytes:
    """The image, from a multipart field `file` or the body itself. Raises as `read_multipart` does."""
    media_type = _media_type(request)
    if media_type == "multipart/form-data":
        return await read_multipart(request)
    if media_type in IMAGE_TYPES:
        # Not request.body(), which the request would keep until it is answered; nor a list, where single bytes cost 40.
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
        return bytes(body)
    raise UnsupportedBody(f"Send multipart/form-data with a field `file`, or the image as {', '.join(IMAGE_TYPES)}.")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Give the work up when the caller leaves: nobody waits for its answer. Raises ClientDisconnect."""
    working, left = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, left}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, left):
            task.cancel()
        # Each has let go of what it holds before the caller's own hold ends.
        await asyncio.gather(working, left, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        """What is left of the body is not of interest."""


def _charset(request: Request) -> bytes:
    _, options = parse_options_header(request.headers["content-type"])
    return options.get(b"charset", b"utf-8").lower()


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
