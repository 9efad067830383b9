"""Decoding mutated and structured images. `make faults` tests ten thousand of each format."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from PIL import Image

from tests.support.gateway import Gateway
from tests.support.paths import ROOT

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def test_hostile_images_are_decoded_or_rejected() -> None:
    """Mutated and structured images give pixels or an error, within limits on time and memory, and crash no process."""
    numbers = ["--images", "300", "--structured", "50", "--requests", "100"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.experiments.fuzz_images", *numbers, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reports = json.loads(done.stdout)
    for name in FORMATS:
        outcomes = [reports[f"{kind} {name}"]["outcomes"] for kind in ("mutated", "structured", "HTTP")]
        assert [sum(counts.values()) for counts in outcomes] == [300, 50, 100]
        assert all(counts["pixels"] > 10 for counts in outcomes[:2])  # enough get past the decoder's first checks
    assert done.stderr == ""


@pytest.fixture
def bad_fax() -> bytes:
    """A TIFF with one bit per pixel, of which the fax decoder cannot read any row."""
    buffer = io.BytesIO()
    Image.effect_noise((800, 800), 99).convert("1").save(buffer, "TIFF", compression="group3")
    data = bytearray(buffer.getvalue())
    for position in range(1_000, len(data) - 1_000, 50):
        data[position] ^= 0xFF
    return bytes(data)


def test_the_decoder_writes_nothing_to_the_log(bad_fax: bytes) -> None:
    """libtiff does not log a message for each unreadable row, with which any caller could fill the log."""
    program = (
        "import sys; from model.imaging.decode import decode_image; from model.imaging.input_spec import DEFAULT_INPUT;"
        "decode_image(sys.stdin.buffer.read(), DEFAULT_INPUT)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=bad_fax, capture_output=True, check=False, timeout=120)
    assert b"Fax" not in done.stderr
    assert (done.returncode, done.stderr) == (0, b"") or b"CorruptImage" in done.stderr


def test_the_log_stays_json_under_hostile_images(gateway: Gateway, bad_fax: bytes) -> None:
    """An image with decoder errors adds only JSON lines to the gateway's log."""
    before = len(gateway.log().splitlines())
    response = gateway.client().post("/v1/predictions", files={"file": bad_fax})
    assert response.status_code in (200, 422)
    lines = [line for line in gateway.complete_log().splitlines()[before:] if not line.startswith("{")]
    assert lines == []
