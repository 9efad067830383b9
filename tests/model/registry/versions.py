"""Artefacts of a few bytes that fill a registry with versions; their graphs are never loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.registry.artefact import write_manifest

MODEL = "tiny"
GRAPH = b"a graph"


def write_version(parent: Path, version: str, content: bytes = GRAPH, name: str = MODEL) -> Path:
    """Write the artefact folder of a version whose only file contains `content`."""
    return write_artefact(parent / f"artefact-{version}", version, name, content)


def write_artefact(folder: Path, version: str, name: str = MODEL, graph: bytes = GRAPH) -> Path:
    """Write an artefact that a registry accepts, although its graph cannot be loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph)
    nothing: dict[str, Any] = {}
    write_manifest(
        folder,
        name=name,
        version=version,
        classes=("beach", "forest"),
        outputs={},
        filenames=("model.onnx",),
        data=nothing,
        results=nothing,
        tools=nothing,
    )
    return folder
