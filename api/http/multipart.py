"""Read one part of a multipart/form-data body (RFC 7578) into memory that the request has reserved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.errors import BadForm, MissingFile

if TYPE_CHECKING:  # the library defines it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

_MAX_PARTS = 32
# The gateway decodes nothing, so it only accepts the charsets that clients really send, not every Python codec.
_CHARSETS = frozenset({b"utf-8", b"us-ascii", b"iso-8859-1"})


async def read_part(content_type: str, chunks: AsyncIterator[bytes], name: str) -> bytes:
    """Return the content of the only part called `name`, with or without a file name; discard the others.

    The content stays in memory: a temporary file would need a disk, and would not count towards the reservation.
    Raises BadForm, MissingFile, and what `chunks` raises.
    """
    reader = _PartReader(name.encode())
    boundary = _read_boundary(content_type)
    parser = MultipartParser(boundary, reader.callbacks)
    try:
        async for chunk in _skip_preamble(chunks, boundary):
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise BadForm("The form cannot be read: it is not valid multipart data.") from None
    if not reader.has_ended:  # the library accepts a body that was cut off
        raise BadForm("The form is incomplete: its last boundary is missing. Send the whole form.")
    if not reader.found:
        raise MissingFile(f"The form has no part named `{name}`. Send the image in that part.")
    return bytes(reader.content)


async def _skip_preamble(chunks: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[bytes]:
    """Yield the chunks from the first boundary on: the text before it has no meaning (RFC 2046, section 5.1.1).

    Raises BadForm if there is no boundary.
    """
    delimiter = b"\n--" + boundary
    held = b"\n"  # the body may begin with the boundary
    async for chunk in chunks:
        held += chunk
        start = held.find(delimiter)
        if start >= 0:
            yield held[start:]
            break
        held = held[-len(delimiter) :]
    else:
        raise BadForm("The form cannot be read: its body does not contain the boundary of its Content-Type.")
    async for chunk in chunks:
        yield chunk


def _read_boundary(content_type: str) -> bytes:
    _, options = parse_options_header(content_type)
    if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        raise BadForm("Use utf-8 as the form's charset, or omit the charset.")
    if not options.get(b"boundary"):
        raise BadForm("The form cannot be read: its Content-Type has no boundary.")
    return options[b"boundary"]


class _PartReader:
    """Collects the content of the part with the given name, from the parser's callbacks."""

    def __init__(self, name: bytes) -> None:
        self.content = bytearray()
        self.found = False
        self.has_ended = False
        self._name = name
        self._parts = 0
        self._is_wanted = False
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""

    @property
    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise BadForm(f"A form may have at most {_MAX_PARTS} parts. Send fewer.")
        self._is_wanted, self._disposition = False, b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BadForm("The form cannot be read: a part has no name in its Content-Disposition.")
        self._is_wanted = options[b"name"] == self._name
        if self._is_wanted and self.found:
            raise BadForm(f"The form has several parts named `{self._name.decode()}`. Send one image per request.")
        self.found = self.found or self._is_wanted

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_wanted:
            self.content += memoryview(data)[start:end]

    def _end(self) -> None:
        self.has_ended = True
