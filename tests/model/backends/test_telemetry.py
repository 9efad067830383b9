"""The telemetry of ONNX Runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def test_onnx_runtime_reports_nothing(tmp_path: Path) -> None:
    """The gateway loads ONNX Runtime with telemetry off, so that the library writes no identifier of the machine."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", "import model.backends.sessions"],
        check=True,
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "CI": ""},
    )
    assert list(tmp_path.rglob("*")) == []
