"""A Triton that serves the shipped network in its Python back end: run_triton HTTP_PORT GRPC_PORT METRICS_PORT GRAPH.

The program is the tritonserver that PyTriton contains, which has no back end for ONNX. It replaces this process.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from tests.support.servers.engines.network import OUTPUTS, SIDES

PACKAGES = Path(sysconfig.get_path("purelib")).absolute()
SERVER = PACKAGES / "pytriton" / "tritonserver"
STUB = "triton_python_backend_stub"
MODEL = Path(__file__).with_name("triton_model.py")
CONFIG = """
name: "landuse"
backend: "python"
max_batch_size: 16
input [{{ name: "image", data_type: TYPE_UINT8, dims: [{sides}] }}]
output [{outputs}]
instance_group [{{ kind: KIND_CPU }}]
"""


def describe_model() -> str:
    outputs = [
        f'{{ name: "{name}", data_type: TYPE_FP32, dims: [{", ".join(map(str, shape))}] }}'
        for name, shape in OUTPUTS.items()
    ]
    return CONFIG.format(sides=", ".join(map(str, SIDES)), outputs=", ".join(outputs))


folder = Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR")))
(folder / "models" / "landuse" / "1").mkdir(parents=True)
(folder / "models" / "landuse" / "config.pbtxt").write_text(describe_model())
shutil.copy(MODEL, folder / "models" / "landuse" / "1" / "model.py")
shutil.copytree(SERVER / "backends" / "python", folder / "backends" / "python")
version = f"{sys.version_info.major}.{sys.version_info.minor}"
shutil.copy(SERVER / "python_backend_stubs" / version / STUB, folder / "backends" / "python" / STUB)
http, grpc, metrics, graph = sys.argv[1:]
libraries = PACKAGES / "nvidia_pytriton.libs"
environment = {
    # The Python back end finds its packages beside the first `python3` in PATH.
    "PATH": os.pathsep.join([str(Path(sys.executable).parent.absolute()), os.environ["PATH"]]),
    "LD_LIBRARY_PATH": str(libraries),
    "PYTHONPATH": os.getcwd(),
    "NETWORK": os.path.abspath(graph),
}
program = str(SERVER / "bin" / "tritonserver")
options = [
    f"--model-repository={folder / 'models'}",
    f"--backend-directory={folder / 'backends'}",
    f"--http-port={http}",
    f"--grpc-port={grpc}",
    f"--metrics-port={metrics}",
    "--http-address=127.0.0.1",
    "--grpc-address=127.0.0.1",
]
os.execve(program, [program, *options], environment)  # noqa: S606  (it stops with the test)
