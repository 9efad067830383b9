"""Reads an uploaded image: from the multipart field `file`, or from the body itself."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from api.errors import UnsupportedBody
from api.http.body_limits import body_too_large, declares_more, parse_length
from api.http.multipart import read_part
from api.prediction.admission import MAX_BODY_BYTES
from api.prediction.errors import ClientDisconnected

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/tiff")
_UNSPECIFIC_TYPES = ("", "application/octet-stream", "binary/octet-stream")
_FORM_TYPE = "multipart/form-data"
_IMAGE_PATHS = ("/v1/predictions", "/predict-land-use", "/predict-land-use/")
_INFER_PATH = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer")

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


def is_image_path(path: str) -> bool:
    """Return whether the endpoint authenticates the caller and reserves memory before it reads a body with images."""
    return path in _IMAGE_PATHS or _INFER_PATH.fullmatch(path) is not None


def check_declared_length(request: Request) -> None:
    """Raise BodyTooLarge if the declared length is too large. An undeclared one is checked while the body is read."""
    if declares_more(request.headers, MAX_BODY_BYTES):
        raise body_too_large(MAX_BODY_BYTES)


def get_declared_length(request: Request) -> int | None:
    """Return the Content-Length in bytes, None if the client sent none."""
    return parse_length(request.headers.get("content-length", ""))


async def read_multipart(request: Request) -> bytes:
    """Return the bytes of the part `file`.

    Raises UnsupportedBody, UnsupportedEncoding, BadForm, MissingFile, BodyTooLarge, RequestTooSlow, ClientDisconnected.
    """
    if _get_media_type(request) != _FORM_TYPE:
        raise UnsupportedBody("Send the image as the part `file` of a multipart/form-data body.")
    return await read_part(request.headers["content-type"], _stream_body(request), "file")


async def read_image(request: Request) -> bytes:
    """Return the image, from the multipart part `file` or the body itself. Raises what `read_multipart` raises.

    The content determines the image format. The declared type only has to be one that an image may have.
    """
    media_type = _get_media_type(request)
    if media_type == _FORM_TYPE:
        return await read_multipart(request)
    if not media_type.startswith("image/") and media_type not in _UNSPECIFIC_TYPES:
        accepted = ", ".join(IMAGE_TYPES)
        raise UnsupportedBody(
            f"Send multipart/form-data with a part `file`, or the image as the body, as {accepted} or without a type."
        )
    return await read_body(request)


async def read_body(request: Request) -> bytes:
    """Return the whole body. Raises UnsupportedEncoding, BodyTooLarge, RequestTooSlow, ClientDisconnected."""
    # Not request.body(), which the request would keep until its response is sent, and not a list of chunks, which takes
    # 40 bytes for each chunk of one byte.
    body = bytearray()
    async for chunk in _stream_body(request):
        body += chunk
    return bytes(body)


async def _stream_body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise ClientDisconnected from None


async def wait_for_disconnect(request: Request) -> None:
    """Return once the client has closed the connection. Discards the rest of the body."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _get_media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
