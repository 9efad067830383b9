"""Open the back end that a URL names. Each back end's module is imported only when it is used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.backends.base import Backend, Origin
from model.backends.engines import SCHEMES as ONNX_SCHEMES
from model.backends.oip.address import SCHEMES as ENGINE_SCHEMES
from model.backends.oip.address import parse_address
from model.backends.prepared.copies import PreparedCopies
from model.errors import ArtefactError, BackendURLError
from model.signing.required import verify_required

if TYPE_CHECKING:
    from model.backends.oip.backend import EngineOptions
    from model.signing.keys import PublicKey

SCHEMES = (*ONNX_SCHEMES, "keras", "stub")
"""The schemes of models that run in this process."""


def open_backend(
    url: str,
    at_once: int = 1,
    copies: PreparedCopies | None = None,
    key: PublicKey | None = None,
    engines: EngineOptions | None = None,
) -> Backend:
    """Load the model that `url` names: `onnx://FOLDER`, `onnx+ENGINE://FOLDER`, `keras://FOLDER` or `stub://`.

    FOLDER is an artefact folder, absolute or relative to the working directory. With `onnx`, `at_once` threads can
    predict without waiting for each other. ENGINE is `cuda` or `openvino`; without it, the CPU computes, and the
    model's prepared copy in `copies`, if there is one, is used instead of the artefact.

    `oip+http://…` and `oip+https://…` name models on inference engines; they require `engines` (see `parse_address`).
    `open_stub` describes the options of `stub://`. With `key`, the folder must be signed, and its signature is verified
    before any other file is opened.
    Raises BackendURLError, ArtefactError, KerasMissing, EngineMissing, EngineMismatch, EngineUnavailable.
    """
    scheme, _, rest = url.partition("://")
    if engines is not None and scheme in ENGINE_SCHEMES:
        from model.backends.oip.backend import open_engines

        return open_engines(parse_address(url), engines, verify_required(engines.folder, key))
    if scheme == "stub":
        from model.backends.stub import open_stub

        return open_stub(rest)
    if scheme not in SCHEMES or not rest:
        schemes = ", ".join(f"{name}://" for name in SCHEMES)
        raise BackendURLError(f"{url!r} is not a model URL. Use one of {schemes}; all but stub need a folder.")
    folder = Path(rest)
    signed = verify_required(folder, key)
    if scheme == "keras":
        from model.backends.keras import KerasBackend

        return KerasBackend(folder, signed)
    from model.backends.onnx import OnnxBackend

    return OnnxBackend(folder, at_once, copies, signed, scheme)


def open_warm(
    url: str,
    at_once: int = 1,
    copies: PreparedCopies | None = None,
    key: PublicKey | None = None,
    engines: EngineOptions | None = None,
) -> Backend:
    """Open as `open_backend` does, and predict once on each session unless an inference engine predicts.

    The first predictions allocate memory; making them here keeps the first requests fast. Raises ArtefactError if the
    outputs are unusable.
    """
    backend = open_backend(url, at_once, copies, key, engines)
    if backend.info.backend in ENGINE_SCHEMES:
        return backend
    blank = np.zeros((1, *backend.info.input_spec.shape), np.uint8)
    # A prepared copy has one session more, for a prediction that runs alone: the first of these gets it.
    is_prepared = backend.weights is not None and backend.weights.origin is Origin.PREPARED
    count = at_once + 1 if is_prepared and at_once > 1 else at_once
    with ThreadPoolExecutor(count) as threads:
        outputs = list(threads.map(backend.predict_pooled, [blank] * count))
    for probabilities, pooled in outputs:
        try:
            backend.info.confidence.check(probabilities[0], pooled[0])
        except (ArithmeticError, ValueError) as error:
            backend.close()
            raise ArtefactError(f"{backend.info.full_name} cannot predict: {error}. Export the model again.") from error
    return backend
