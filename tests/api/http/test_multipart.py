"""What surrounds the parts of a form: the preamble and the boundary."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.errors import BadForm
from api.http.multipart import read_part

TYPE = "multipart/form-data; boundary=b"
FORM = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n\xff\n--b in it\r\n--b--\r\n'
CONTENT = b"\xff\n--b in it"
PREAMBLES = [
    b"",
    b"\r\n",
    b"\n",
    b"This is a form.\r\n",
    b"Its boundary is --b\r\n --b\r\n",
    b"--\r\n--c\r\n",
    b"x" * 5000 + b"\r\n",
]


async def split(body: bytes, chunk_bytes: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), chunk_bytes):
        yield body[start : start + chunk_bytes]


@pytest.mark.parametrize("chunk_bytes", [1, 2, 7, 10_000])
@pytest.mark.parametrize("preamble", PREAMBLES, ids=range(len(PREAMBLES)))
async def test_a_preamble_is_ignored(preamble: bytes, chunk_bytes: int) -> None:
    """The text before the first boundary has no meaning (RFC 2046, section 5.1.1), however it arrives."""
    assert await read_part(TYPE, split(preamble + FORM, chunk_bytes), "file") == CONTENT


@pytest.mark.parametrize("chunk_bytes", [1, 7, 10_000])
@pytest.mark.parametrize("body", [b"", b"x" * 1000, b"text --b\r\n", b"--c\r\n", b"\r\n--\r\n"], ids=range(5))
async def test_a_body_without_the_boundary_is_refused(body: bytes, chunk_bytes: int) -> None:
    """A body that does not contain the boundary of its Content-Type is a bad form."""
    with pytest.raises(BadForm, match="does not contain the boundary"):
        await read_part(TYPE, split(body, chunk_bytes), "file")


async def test_a_line_that_only_begins_like_the_boundary_is_refused() -> None:
    """A preamble with a line that begins like the boundary is a bad form, and is not skipped."""
    with pytest.raises(BadForm):
        await read_part(TYPE, split(b"--bc\r\n" + FORM, 10_000), "file")


@pytest.mark.parametrize("chunk_bytes", [1, 7, 10_000])
@pytest.mark.parametrize("missing_bytes", [4, 5, 6, 7, 8, 9, 20])
async def test_a_truncated_form_is_refused(missing_bytes: int, chunk_bytes: int) -> None:
    """A form whose last boundary is missing or cut off is a bad form, even if its part could be read."""
    with pytest.raises(BadForm, match="incomplete"):
        await read_part(TYPE, split(FORM[:-missing_bytes], chunk_bytes), "file")


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\nepilogue"], ids=range(3))
async def test_text_after_the_last_boundary_is_ignored(end: bytes) -> None:
    """The last boundary ends a form, with or without a line break or an epilogue after it."""
    assert await read_part(TYPE, split(FORM.removesuffix(b"\r\n") + end, 10_000), "file") == CONTENT
