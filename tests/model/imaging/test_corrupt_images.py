"""Bytes that are not an image, or are a damaged one, are rejected with a code and have no other effect."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import errors
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.model.imaging.crafted_images import FORMATS, get_rejection, make_small

Encode = Callable[..., bytes]


def test_an_empty_body_has_its_own_error() -> None:
    """An empty body raises EmptyImage."""
    with pytest.raises(errors.EmptyImage):
        decode_image(b"", DEFAULT_INPUT)


@pytest.mark.parametrize("data", [b"GIF89a" + bytes(20), b"BM" + bytes(60), b"%!PS-Adobe-3.0 EPSF", b"\0", b"RIFF"])
def test_other_formats_are_rejected_by_content(data: bytes) -> None:
    """Bytes that do not begin like one of the four formats raise UnsupportedImage."""
    with pytest.raises(errors.UnsupportedImage):
        decode_image(data, DEFAULT_INPUT)


def test_warnings_of_the_decoder_are_neither_printed_nor_kept(make_tiff: Encode) -> None:
    """Pillow's warnings quote the caller's file, so they must not reach the log or fill the memory."""
    tags = {tag: (3, [1, 2, 3]) for tag in (266, 274, 284, 296)}
    program = (
        "import sys; from PIL import TiffImagePlugin; from model.imaging.decode import decode_image;"
        "from model.imaging.input_spec import DEFAULT_INPUT;"
        "decode_image(sys.stdin.buffer.read(), DEFAULT_INPUT);"
        "print([key for key in getattr(TiffImagePlugin, '__warningregistry__', {}) if key != 'version'])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=make_tiff((8, 8), [8], bytes(64), tags), capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
    assert done.stderr == b""


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_files_are_rejected(name: str) -> None:
    """A file cut at any length is rejected with a code, or decoded when only padding is missing."""
    data = make_small(name)
    outcomes = [get_rejection(data[:length]) for length in range(0, len(data), 3)]
    rejections = [outcome for outcome in outcomes if outcome is not None]
    assert all(rejection.code for rejection in rejections)
    assert len(rejections) > 0.9 * len(outcomes)


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_file_is_corrupt(name: str) -> None:
    """An incomplete upload raises CorruptImage."""
    data = make_small(name)
    with pytest.raises(errors.CorruptImage):
        decode_image(data[: len(data) // 2], DEFAULT_INPUT)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=100)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12))
def test_changed_bytes_are_decoded_or_rejected(name: str, changes: list[tuple[float, int]]) -> None:
    """Whichever bytes are overwritten, the result is an image or a rejection with a code."""
    data = bytearray(make_small(name))
    for position, value in changes:
        data[int(position * len(data))] = value
    rejection = get_rejection(bytes(data))
    assert rejection is None or rejection.code


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60)
@given(position=st.floats(0, 1), inserted=st.binary(max_size=40), removed=st.integers(0, 40))
def test_shifted_bytes_are_decoded_or_rejected(name: str, position: float, inserted: bytes, removed: int) -> None:
    """Whichever bytes are inserted or removed, the result is an image or a rejection with a code."""
    data = make_small(name)
    start = int(position * len(data))
    rejection = get_rejection(data[:start] + inserted + data[start + removed :])
    assert rejection is None or rejection.code


@settings(max_examples=100)
@given(
    start=st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0+", b"RIFF\0\0\0\0WEBPVP8 "]),
    rest=st.binary(max_size=200),
)
def test_noise_after_a_signature_is_rejected(start: bytes, rest: bytes) -> None:
    """A format's signature followed by random bytes is not an image."""
    with pytest.raises(errors.ImageRejected):
        decode_image(start + rest, DEFAULT_INPUT)


def test_every_rejection_has_its_own_code() -> None:
    """Callers can tell rejections apart by a stable code in snake case."""
    classes = errors.ImageRejected.__subclasses__()
    codes = {error.code for error in classes}
    assert codes == {
        "empty_image",
        "unsupported_image",
        "image_too_many_bytes",
        "image_too_many_pixels",
        "image_too_large_here",
        "tensor_shape",
        "unsupported_pixel_format",
        "corrupt_image",
    }
    assert len(codes) == len(classes)


@pytest.mark.parametrize("step", ["PIL.Image.open", "model.imaging.containers.png.ReducedFile"])
@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")])
def test_errors_of_the_machine_are_not_blamed_on_the_image(
    monkeypatch: pytest.MonkeyPatch, error: Exception, step: str
) -> None:
    """Running out of memory or file descriptors raises the original error, not CorruptImage."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(step, fail)
    with pytest.raises(type(error)):
        decode_image(make_small("PNG"), DEFAULT_INPUT)
