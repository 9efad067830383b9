"""Encryption of kept images, and the limit on their storage space."""

from __future__ import annotations

import os
from base64 import b64encode, urlsafe_b64encode

import pytest

from storage.images.errors import ImageUnreadable
from storage.images.sealing import ImageSeal, parse_keys
from storage.images.space import RECHECK_S, SpaceLimit

OLD, NEW = os.urandom(32), b"\xfb" * 32
OWNER, NAME, IMAGE = "owner", "prediction", b"an image"


def test_keys_rotate() -> None:
    """The first key encrypts; an image encrypted with an earlier key can be read while that key is still listed."""
    sealed = ImageSeal([OLD]).seal(OWNER, NAME, IMAGE)
    assert ImageSeal([NEW, OLD]).unseal(OWNER, NAME, sealed) == IMAGE
    assert ImageSeal([NEW]).unseal(OWNER, NAME, ImageSeal([NEW, OLD]).seal(OWNER, NAME, IMAGE)) == IMAGE
    with pytest.raises(ImageUnreadable, match="IMAGES__KEY lacks the key"):
        ImageSeal([NEW]).unseal(OWNER, NAME, sealed)


@pytest.mark.parametrize("position", [0, 5, 13, 25, -1])
def test_changed_images_do_not_open(position: int) -> None:
    """An image with a change in any part is rejected: the marker, the key's id, the nonce, the image and its tag."""
    changed = bytearray(ImageSeal([OLD]).seal(OWNER, NAME, IMAGE))
    changed[position] ^= 1
    with pytest.raises(ImageUnreadable):
        ImageSeal([OLD]).unseal(OWNER, NAME, bytes(changed))


@pytest.mark.parametrize("names", [("other", NAME), (OWNER, "other")])
def test_exchanged_images_do_not_open(names: tuple[str, str]) -> None:
    """An image can be decrypted only with its own owner and prediction."""
    with pytest.raises(ImageUnreadable, match="was changed"):
        ImageSeal([OLD]).unseal(*names, ImageSeal([OLD]).seal(OWNER, NAME, IMAGE))


@pytest.mark.parametrize("length", [0, 3, 12, 23])
def test_incomplete_images_do_not_open(length: int) -> None:
    """A truncated image, as a killed process leaves it, raises ImageUnreadable."""
    with pytest.raises(ImageUnreadable, match=r"incomplete|lacks the key"):
        ImageSeal([OLD]).unseal(OWNER, NAME, ImageSeal([OLD]).seal(OWNER, NAME, IMAGE)[:length])


def test_keys_are_base64_of_either_alphabet() -> None:
    """Keys are 32 bytes in base64, in the standard or the URL-safe alphabet, separated by commas."""
    text = f"{b64encode(NEW).decode()}, {urlsafe_b64encode(NEW).decode()}"
    assert parse_keys(text) == [NEW, NEW]
    for wrong in ("", "abc", b64encode(b"short").decode(), f"{b64encode(NEW).decode()},"):
        with pytest.raises(ValueError, match=r"."):
            parse_keys(wrong)


def test_a_full_store_admits_nothing() -> None:
    """Writes are admitted until the limit; a full store is measured again only after a minute."""
    stored, now, measured = 0, 0.0, 0

    def measure() -> int:
        nonlocal measured
        measured += 1
        return stored

    limit = SpaceLimit(measure, 1000, clock=lambda: now)
    while limit.admits(30):
        stored += 30
    assert stored == 990
    measurements = measured
    assert not limit.admits(30)
    assert measured == measurements
    stored, now = 0, RECHECK_S + 1
    assert limit.admits(30)


@pytest.mark.parametrize("processes", [4, 64])
def test_processes_share_the_space(processes: int) -> None:
    """Processes that fill the store together stop within a tenth of its limit."""
    stored = 0
    limits = [SpaceLimit(lambda: stored, 10_000, processes=processes) for _ in range(processes)]
    for limit in limits:  # each measures the empty store
        stored += 10 * limit.admits(10)
    for limit in limits * 300:
        stored += 10 * limit.admits(10)
    assert 9_000 <= stored <= 11_000


def test_slow_measuring_is_rare() -> None:
    """A measurement that takes ten seconds is repeated after twenty times as long, and a fast one after a minute."""
    now, measured_at, duration = 0.0, list[float](), 10.0

    def measure() -> int:
        nonlocal now
        measured_at.append(now)
        now += duration
        return 0

    limit = SpaceLimit(measure, 1000, clock=lambda: now)
    while now < 300:
        limit.admits(1)
        now += 1
    assert measured_at == [0, 210]
    duration = 0.0
    while now < 600:
        limit.admits(1)
        now += 1
    assert measured_at[2:] == [420, 481, 542]
