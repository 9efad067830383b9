"""How an image arrives: as a multipart field `file`, or as the body itself."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api.errors import BadForm, MissingFile, UnsupportedBody

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/tiff")
# Room for the part's headers and boundaries around an image of the largest accepted size.
MULTIPART_OVERHEAD_BYTES = 64 * 1024
_MAX_FIELDS = 8

_FILE_SCHEMA = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
}
_RAW_SCHEMA = {"schema": {"type": "string", "format": "binary"}}
MULTIPART_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": _FILE_SCHEMA}}}
MULTIPART_OR_RAW_BODY = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": _FILE_SCHEMA, **dict.fromkeys(IMAGE_TYPES, _RAW_SCHEMA)},
    }
}


async def read_multipart(request: Request) -> bytes:
    """The bytes of the field `file`. Raises UnsupportedBody, BadForm, MissingFile, BodyTooLarge."""
    if _media_type(request) != "multipart/form-data":
        raise UnsupportedBody("Send the image as the field `file` of a multipart/form-data body.")
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
        return await request.body()
    raise UnsupportedBody(f"Send multipart/form-data with a field `file`, or the image as {', '.join(IMAGE_TYPES)}.")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
