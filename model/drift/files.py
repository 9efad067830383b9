"""Reference files for artefacts whose manifest lacks a reference, because an earlier release exported them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from model.drift.reference import Reference
from model.errors import ArtefactError

SCHEMA = 1


def describe_reference_file(reference: Reference, model: str, digest: str) -> dict[str, Any]:
    """Return the contents of a reference file for JSON. `digest` is the SHA-256 of model.onnx in hex."""
    return {"schema": SCHEMA, "model": model, "digest": digest, **reference.to_document()}


def find_reference(files: Iterable[Path], digest: str) -> Reference | None:
    """Return the first reference for the model with this digest; None if no file has one.

    Raises ArtefactError if some files cannot be read and no other file has one.
    """
    problem: ArtefactError | None = None
    for path in files:
        try:
            document = json.loads(path.read_bytes())
            if document["schema"] == SCHEMA and document["digest"] == digest:
                return Reference.from_document(document)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            problem = problem or ArtefactError(f"{path} is not a reference for drift of schema {SCHEMA}: {error}")
    if problem is not None:
        raise problem
    return None
