"""Tests that import Keras are collected only where it is installed: `make test` runs them in the Keras environment."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = (
    [] if find_spec("keras") else ["test_export.py", "test_export_head.py", "test_network.py", "test_training.py"]
)
