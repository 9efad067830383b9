"""A bad candidate: the shipped network with a permuted head, which mistakes each class for another one.

    python -m tests.model.registry.permuted_head VERSION FOLDER

writes its artefact, unsigned. The model loads, is as fast as the original and gives confident predictions: only a
comparison on the same images shows the defect.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec.structs import replace

from model.backends.onnx import MODEL_FILE
from model.explanation.head import HEAD_FILE, read_head, write_head
from model.registry.artefact import read_manifest
from tests.model.registry.registered_models import write_variant
from tests.support.paths import ARTEFACT

_CHANNELS = 1280


def permute_head() -> Mapping[str, bytes]:
    """Return the graph and the head with all classes shifted by one, by file name."""
    graph = (ARTEFACT / MODEL_FILE).read_bytes()
    head = read_head(ARTEFACT, read_manifest(ARTEFACT), _CHANNELS)
    if head is None:
        raise ValueError(f"{ARTEFACT} has no head")
    last = head.layers[-1]
    permuted = replace(last, kernel=np.roll(last.kernel, 1, axis=1), bias=np.roll(last.bias, 1))
    for before, after in ((last.kernel, permuted.kernel), (last.bias, permuted.bias)):
        if graph.count(before.tobytes()) != 1:  # the graph contains the same bytes as memory
            raise ValueError(f"the graph in {ARTEFACT} does not hold the head of {HEAD_FILE}")
        graph = graph.replace(before.tobytes(), after.tobytes())
    with TemporaryDirectory() as folder:
        write_head(Path(folder) / HEAD_FILE, replace(head, layers=(*head.layers[:-1], permuted)))
        return {MODEL_FILE: graph, HEAD_FILE: (Path(folder) / HEAD_FILE).read_bytes()}


if __name__ == "__main__":
    _, new_version, target = sys.argv
    Path(target).mkdir(parents=True)
    write_variant(Path(target), new_version, permute_head())
