"""Serve deploy/ray on this machine, in the virtual environment of Ray: `run_engine.py FOLDER PORT TEMPORARY_FOLDER`."""

from __future__ import annotations

import sys

import ray
from ray import serve

from deploy.ray.engine import build

OBJECTS_BYTES = 100_000_000


def main(artefact: str, port: str, temporary: str) -> None:
    # Without its dashboard, Ray starts in half the time. Serve itself needs no CPU core, and each replica needs one.
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=OBJECTS_BYTES, _temp_dir=temporary)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(build({"artefact": artefact, "max_replicas": "2"}), name="engine", blocking=True)


main(*sys.argv[1:])
