"""Opening the model that the settings name."""

from __future__ import annotations

from api.errors import SettingsError
from api.server.allocator import mapping_weights
from api.services.capacity import count_inference_threads
from api.services.preparation import find_copies
from api.services.registry import find_model_url
from api.settings import Settings
from model.backends.base import Backend
from model.backends.open import open_warm
from model.errors import BackendURLError
from model.registry.errors import RegistryError


def open_model(settings: Settings) -> Backend:
    """Open the model of MODEL__URL, warmed up. Raises SettingsError, ArtefactError."""
    try:
        return open_url(settings, find_model_url(settings))
    except (BackendURLError, RegistryError) as error:
        raise SettingsError(f"MODEL__URL: {error}") from None


def open_url(settings: Settings, url: str, threads: int | None = None) -> Backend:
    """Open a back end, by default for the configured inference threads, warmed up.

    Raises BackendURLError, ArtefactError.
    """
    copies, key = find_copies(settings), settings.artefact_key()
    with mapping_weights():
        return open_warm(url, threads or count_inference_threads(settings), copies, key)
