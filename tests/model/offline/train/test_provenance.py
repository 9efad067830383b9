"""The description of a run's starting weights."""

from __future__ import annotations

import os
from pathlib import Path

from model.offline.train.provenance import describe_init


def test_a_name_that_is_not_utf8_is_described(tmp_path: Path) -> None:
    """The description of weights can be written to the model card, whatever the bytes of their file's name."""
    path = tmp_path / os.fsdecode(b"\xff.weights.h5")
    path.write_bytes(b"weights")
    assert describe_init(str(path))["name"] == "\N{REPLACEMENT CHARACTER}.weights.h5"
