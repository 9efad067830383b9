"""Opens the model that the settings name."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from msgspec.structs import replace

from api.errors import SettingsError
from api.server.allocator import mapping_weights, return_free_memory
from api.services.capacity import count_inference_threads, count_local_threads
from api.services.prepared_copies.finding import find_copies
from api.services.registry import find_model_url
from api.settings import Settings
from api.settings.model import Fallback, ModelSettings
from model.backends.base import Backend
from model.backends.batching import BatchingBackend
from model.backends.open import open_warm
from model.errors import BackendURLError
from model.registry.errors import RegistryError

if TYPE_CHECKING:
    from model.backends.oip.backend import EngineOptions

# The longest a prediction waits for engines: always less than MODEL__STUCK_SECONDS, after which the process ends.
_MAX_S = 30.0


def open_model(settings: Settings) -> Backend:
    """Open the model in MODEL__URL and warm it up. Raises SettingsError, ArtefactError."""
    try:
        return open_url(settings, find_model_url(settings))
    except (BackendURLError, RegistryError) as error:
        raise SettingsError(f"MODEL__URL: {error}") from None


def open_url(settings: Settings, url: str, threads: int | None = None) -> Backend:
    """Open a back end and warm it up, by default for the configured inference threads.

    Raises BackendURLError, ArtefactError.
    """
    copies, key, engines = find_copies(settings), settings.artefact_key(), None
    if url.startswith("oip+"):
        engines = read_engine_options(settings)
        if settings.model.fallback is Fallback.LOCAL:
            local = f"onnx://{settings.model.manifest}"
            engines = replace(engines, local=open_warm(local, count_local_threads(settings), copies, key))
    with mapping_weights():
        backend = open_warm(url, threads or count_inference_threads(settings), copies, key, engines)
    if settings.model.batch == 1:
        return backend
    return BatchingBackend(backend, settings.model.batch, settings.model.batch_linger_ms / 1000)


def release(backend: Backend) -> None:
    """Close a back end that is no longer used, and return its memory to the system."""
    backend.close()
    return_free_memory()


def read_engine_options(settings: Settings) -> EngineOptions:
    """Return the engine options and load the certificates, without a local model. Raises SettingsError."""
    from model.backends.oip.backend import EngineOptions
    from model.backends.oip.connections import Transport

    model = settings.model
    token = None if model.engine_token is None else model.engine_token.get_secret_value()
    transport = Transport(_open_tls(model) if model.url.startswith("oip+https:") else None, token)
    longest_s = min(_MAX_S, model.stuck_seconds / 2)
    return EngineOptions(model.manifest, transport, model.engine_requests, longest_s=longest_s)


def _open_tls(model: ModelSettings) -> ssl.SSLContext:
    """Raises SettingsError."""
    try:
        context = ssl.create_default_context(cafile=model.engine_ca)
        if model.engine_certificate is not None:
            context.load_cert_chain(model.engine_certificate, model.engine_key)
    except OSError as error:  # including SSLError
        raise SettingsError(
            "MODEL__ENGINE_CA, MODEL__ENGINE_CERTIFICATE or MODEL__ENGINE_KEY cannot be read: "
            f"{error.strerror or error}."
        ) from None
    return context
