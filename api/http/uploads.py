"""How an image arrives: as the multipart field `file`, or as the body itself."""

from __future__ import annotations

from http import HTTPStatus

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from api.errors import BadForm, MissingFile, UnsupportedBody
from api.http.body_limits import announces_more, body_too_large
from api.prediction.admission import MAX_BODY_BYTES
from api.prediction.errors import ClientDisconnected

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/tiff")
# These paths authenticate the caller and reserve memory before they read a body.
IMAGE_PATHS = ("/v1/predictions", "/predict-land-use", "/predict-land-use/")
_MAX_FIELDS = 32
# A form may name any Python codec as its charset: `undefined` fails, and `punycode` takes minutes for a megabyte.
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


def check_declared_length(request: Request) -> None:
    """Raise BodyTooLarge if the declared length is too great; an undeclared one is counted while the body is read."""
    if announces_more(request.headers, MAX_BODY_BYTES):
        raise body_too_large(MAX_BODY_BYTES)


def get_declared_length(request: Request) -> int | None:
    """The Content-Length in bytes, None if the client sent none."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else None


async def read_multipart(request: Request) -> bytes:
    """Return the bytes of the field `file`.

    Raises UnsupportedBody, BadForm, MissingFile, BodyTooLarge, RequestTooSlow, ClientDisconnected.
    """
    if _get_media_type(request) != "multipart/form-data":
        raise UnsupportedBody("Send the image as the field `file` of a multipart/form-data body.")
    if _get_charset(request) not in _CHARSETS:
        raise BadForm("Use utf-8 as the form's charset, or omit the charset.")
    try:
        async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise MissingFile("The form has no file named `file`. Put the image there.")
            return await file.read()
    except ClientDisconnect:
        raise ClientDisconnected from None
    except HTTPException as error:
        if error.status_code != HTTPStatus.BAD_REQUEST:
            raise
        raise BadForm(f"The form cannot be read: {error.detail}") from error


async def read_image(request: Request) -> bytes:
    """Return the image, from the multipart field `file` or the body itself. Raises what `read_multipart` raises."""
    media_type = _get_media_type(request)
    if media_type == "multipart/form-data":
        return await read_multipart(request)
    if media_type not in IMAGE_TYPES:
        accepted = ", ".join(IMAGE_TYPES)
        raise UnsupportedBody(f"Send multipart/form-data with a field `file`, or the image as {accepted}.")
    # Not request.body(), which the request would keep until its response is sent; nor a list of chunks, which takes 40
    # bytes for each chunk of one byte.
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
    except ClientDisconnect:
        raise ClientDisconnected from None
    return bytes(body)


async def wait_for_disconnect(request: Request) -> None:
    """Return once the client has closed the connection; discards what is left of the body."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _get_charset(request: Request) -> bytes:
    _, options = parse_options_header(request.headers["content-type"])
    return options.get(b"charset", b"utf-8").lower()


def _get_media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
