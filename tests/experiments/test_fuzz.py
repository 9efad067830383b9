"""Mutated images, in the short form: `make faults` takes ten thousand of each format."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def test_mutated_images_are_decoded_or_refused() -> None:
    """300 mutants of each format end as pixels or a refusal; over HTTP as a 200 or a 4xx; no process grows or dies."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.experiments.fuzz_images", "--images", "300", "--requests", "100", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reports = json.loads(done.stdout)
    for name in FORMATS:
        decoded, answered = reports[f"decoder {name}"]["outcomes"], reports[f"HTTP {name}"]["outcomes"]
        assert (sum(decoded.values()), sum(answered.values())) == (300, 100)
        assert decoded["pixels"] > 10  # not all of them are nonsense at the first byte
    assert done.stderr == ""


@pytest.fixture
def bad_fax() -> bytes:
    """A TIFF of one bit a pixel whose every row is unreadable to the fax decoder."""
    buffer = io.BytesIO()
    Image.effect_noise((800, 800), 99).convert("1").save(buffer, "TIFF", compression="group3")
    data = bytearray(buffer.getvalue())
    for place in range(1_000, len(data) - 1_000, 50):
        data[place] ^= 0xFF
    return bytes(data)


def test_the_decoder_writes_nothing_to_the_log(bad_fax: bytes) -> None:
    """libtiff's complaint about each row of a bad fax stays out of the log, which any caller could fill."""
    program = (
        "import sys; from model.imaging.decode import decode_image; from model.imaging.input_spec import DEFAULT_INPUT;"
        "decode_image(sys.stdin.buffer.read(), DEFAULT_INPUT)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=bad_fax, capture_output=True, check=False, timeout=60)
    assert b"Fax" not in done.stderr
    assert (done.returncode, done.stderr) == (0, b"") or b"CorruptImage" in done.stderr


def test_the_log_stays_json_under_hostile_images(gateway: Any, bad_fax: bytes) -> None:
    """A file that its decoder complains of leaves one line in the gateway's log: the request's."""
    before = len(gateway.log().splitlines())
    answer = gateway.client().post("/v1/predictions", files={"file": bad_fax})
    assert answer.status_code in (200, 422)
    lines = [line for line in gateway.log().splitlines()[before:] if not line.startswith("{")]
    assert lines == []
