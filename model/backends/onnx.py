"""The serving back end: ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.backends.base import ModelInfo, Origin, Weights
from model.backends.engines import SCHEMES, Engine
from model.backends.prepared.copies import PreparedCopies, PreparedCopy
from model.backends.prepared.errors import PreparedCopyAbsent, PreparedCopyRejected
from model.backends.session_pool import SessionPool
from model.backends.sessions import open_prepared_sessions, open_sessions, release_memory
from model.errors import ArtefactError, EngineMissing
from model.explanation.head import read_head
from model.registry.artefact import Manifest, read_manifest, read_verified

MODEL_FILE = "model.onnx"
# Graphs of earlier releases take float32.
_INPUT_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
# Measured: two cores take 0.6 of the time of one. More were not measured.
PARALLEL_CORES = 2


class OnnxBackend:
    """Serves `model.onnx` of an artefact folder. Raises ArtefactError, EngineMissing.

    `read_manifest` explains `signed`. The graph takes uint8 or float32 [n, height, width, 3] in 0..255. Each of
    `at_once` sessions runs one prediction at a time: threads that share a session reuse memory that is in another
    core's cache, which takes up to a third longer. The sessions open the model's prepared copy, if `copies` has one
    and `scheme` is "onnx", and otherwise the artefact. With a prepared copy and more than one session, a prediction
    that runs alone uses two cores (ADR 0075).
    """

    def __init__(
        self,
        folder: Path,
        at_once: int = 1,
        copies: PreparedCopies | None = None,
        signed: Mapping[str, str] | None = None,
        scheme: str = "onnx",
    ) -> None:
        manifest = read_manifest(folder, signed)
        engine = SCHEMES[scheme]
        # A prepared copy is optimised for the CPU.
        prepared = copies if engine is Engine.CPU else None
        opened = _open(folder, manifest, at_once, prepared, engine)
        self.weights, self._mapping = opened.weights, opened.mapping
        session = opened.sessions[0]
        self._input, dtype = _check_graph(session, manifest, folder)
        self._dtype = np.dtype(dtype)
        channels = _count_channels(session)
        self.head = read_head(folder, manifest, channels)
        _check_gate(manifest, channels, folder)
        self._sessions = SessionPool(opened.sessions, opened.parallel)
        digest = manifest.files[MODEL_FILE].sha256
        # Graphs of older exports lack this output.
        self._has_pooled = "pooled" in {output.name for output in session.get_outputs()}
        self.info = ModelInfo(
            manifest.name,
            manifest.version,
            digest,
            scheme,
            manifest.classes,
            replace(manifest.input_spec, dtype=dtype),
            manifest.confidence,
        )

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = self._run(["probabilities"], pixels)[0]
        return probabilities

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self._has_pooled:
            probabilities, pooled = self._run(["probabilities", "pooled"], pixels)
        else:
            probabilities, features = self.predict_with_features(pixels)
            pooled = features.mean(axis=(1, 2))
        return probabilities, pooled

    def predict_with_features(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        probabilities, features = self._run(["probabilities", "features"], pixels)
        return probabilities, features

    def release_memory(self) -> None:
        with self._sessions.borrow_free() as sessions:  # those in use keep their memory
            for session in sessions:
                release_memory(session)

    def close(self) -> None:
        self._sessions.close()

    def _run(self, outputs: list[str], pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        values = pixels.astype(self._dtype, copy=False)
        with self._sessions.borrow() as session:
            # The runtime's arrays are views. Each would keep the session's memory for intermediate values (20 MB), even
            # after `close`.
            return [np.array(output) for output in session.run(outputs, {self._input: values})]


class _Opened(Struct, frozen=True):
    """The sessions, the one for a prediction that runs alone, and the mapping that must outlive them."""

    sessions: list[Any]
    parallel: Any | None = None
    weights: Weights | None = None
    mapping: memoryview = memoryview(b"")


def _open(folder: Path, manifest: Manifest, count: int, copies: PreparedCopies | None, engine: Engine) -> _Opened:
    weights = None
    entry = manifest.files.get(MODEL_FILE)
    if copies is not None and entry is not None:
        try:
            return _open_prepared(copies.open(entry.sha256), count)
        except PreparedCopyAbsent as error:
            weights = Weights(Origin.ABSENT, str(error))
        except PreparedCopyRejected as error:
            weights = Weights(Origin.REJECTED, str(error))
    graph = read_verified(folder, manifest, MODEL_FILE)
    try:
        return _Opened(open_sessions(graph, count, engine), weights=weights)
    except EngineMissing:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise ArtefactError(f"{folder / MODEL_FILE} cannot be loaded. Export the model again.") from error


def _open_prepared(copy: PreparedCopy, count: int) -> _Opened:
    # Without a prepared copy, another session would need its own copy of the weights.
    parallel = [PARALLEL_CORES] if count > 1 else []
    try:
        sessions = open_prepared_sessions(copy, [1] * count + parallel)
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise PreparedCopyRejected(f"ONNX Runtime cannot open it: {error}") from error
    weights = Weights(Origin.PREPARED, shared_bytes=len(copy.weights))
    return _Opened(sessions[:count], sessions[count] if parallel else None, weights, copy.weights)


def _count_channels(session: Any) -> int | None:
    """Return the number of feature maps, or None if the graph does not fix it (a symbolic or unnamed axis)."""
    channels = next(output.shape[-1] for output in session.get_outputs() if output.name == "features")
    return channels if isinstance(channels, int) else None


def _check_gate(manifest: Manifest, channels: int | None, folder: Path) -> None:
    gate = manifest.confidence.abstention.gate
    if gate is not None and channels is not None and len(gate.weights) != channels:
        raise ArtefactError(
            f"The gate in the manifest of {folder} has {len(gate.weights)} weights, but the graph has {channels} "
            "feature maps. Export the model again."
        )


def _check_graph(session: Any, manifest: Manifest, folder: Path) -> tuple[str, str]:
    """Return the name and type of the graph's input. Raises ArtefactError when graph and manifest do not match."""
    inputs = session.get_inputs()
    outputs = {output.name: output.shape for output in session.get_outputs()}
    declared = {"probabilities", "features", *manifest.outputs}
    has_input = len(inputs) == 1 and inputs[0].type in _INPUT_TYPES
    if not has_input or inputs[0].shape[1:] != list(manifest.input_spec.shape) or not declared <= set(outputs):
        raise ArtefactError(
            f"The inputs or outputs of the graph in {folder} differ from its manifest. Export the model again."
        )
    if outputs["probabilities"][1:] != [len(manifest.classes)]:
        raise ArtefactError(
            f"The number of classes of the graph in {folder} differs from its manifest. Export the model again."
        )
    return inputs[0].name, _INPUT_TYPES[inputs[0].type]
