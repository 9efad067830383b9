"""Artefacts of a few bytes that fill a registry with versions; their graphs are never loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.registry.artefact import write_manifest

MODEL = "tiny"


def write_version(parent: Path, version: str, content: bytes = b"a graph", name: str = MODEL) -> Path:
    """Write the artefact folder of a version whose only file contains `content`."""
    folder = parent / f"artefact-{version}"
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
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
