"""Paths of the project's files, for tests, benchmarks and experiments."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
FOREST = SAMPLES / "yellowstone_forest.jpg"
SHRUBLAND = SAMPLES / "soaproot_shrubland.jpg"
ARTEFACT = ROOT / "artifacts" / "efficientnetb0-v1.1"
MODEL_URL = f"onnx://{ARTEFACT}"
BIN = Path(sys.executable).parent
ATALAYA = BIN / "atalaya"
NVML = Path(__file__).parent / "linux" / "nvml"
"""A folder with a fake of NVIDIA's library, to put into PYTHONPATH."""
