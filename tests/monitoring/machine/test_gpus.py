"""Reading the state of the GPUs."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import NVML, ROOT


def test_what_a_divided_gpu_does_not_report_is_none() -> None:
    """A GPU that is divided into instances reports its memory but no utilization."""
    code = "from monitoring.machine.gpus import read_gpus; print(*read_gpus().values(), sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": f"{NVML}{os.pathsep}{ROOT}"}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert ended.stdout.splitlines() == [
        "GpuState(utilization=0.4, used_bytes=1073741824, total_bytes=17179869184)",
        "GpuState(utilization=None, used_bytes=2147483648, total_bytes=17179869184)",
    ]


def test_a_gateway_without_the_library_reports_no_gpus() -> None:
    """Without nvidia-ml-py no GPUs are reported and no error is raised."""
    code = "import sys; sys.modules['pynvml'] = None; from monitoring.machine.gpus import read_gpus; print(read_gpus())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "{}\n"
