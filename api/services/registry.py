"""Opens the registry in MODEL__REGISTRY, and locates the model in MODEL__URL, in the registry or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from api.errors import SettingsError
from api.settings import INSTALLATION, Settings, home_folder
from model.registry.files import FileRegistry


def open_registry(settings: Settings) -> FileRegistry:
    """Open the registry, or the mirror of an MLflow registry. Raises SettingsError without MODEL__REGISTRY."""
    folder = settings.model.registry_folder
    if folder is None:
        raise SettingsError("MODEL__REGISTRY is not set. Set it to file://FOLDER, the folder of the registry.")
    return FileRegistry(folder)


def find_model_url(settings: Settings) -> str:
    """Return MODEL__URL, or for a model of the registry, the onnx:// URL of the version that the alias names now.

    Raises RegistryError, ArtefactError.
    """
    reference = settings.model.reference
    if reference is None:
        return settings.model.url
    registry = open_registry(settings)
    version = registry.read(reference.model).find_alias(reference.alias)
    return f"onnx://{registry.find_folder(reference.model, version)}"


def find_model_folder(settings: Settings, version: str) -> Path:
    """Return the folder of `version` of the model in MODEL__URL. Outside a registry, a model has only one version.

    Raises RegistryError, ArtefactError.
    """
    reference = settings.model.reference
    if reference is None:
        return Path(settings.model.url.partition("://")[2])
    return open_registry(settings).find_folder(reference.model, version)


def list_artefact_folders(settings: Settings) -> Iterator[Path]:
    """Yield the folders that may contain a model. Raises RegistryError.

    These are the folders of the registry, the configured folder and its siblings, and the folders in artifacts/ of the
    home and of the installation.
    """
    if settings.model.registry is not None:
        yield from open_registry(settings).list_folders()
    scheme, _, folder = settings.model.url.partition("://")
    if scheme.partition("+")[0] == "onnx":
        yield Path(folder)
        yield from sorted(Path(folder).resolve().parent.glob("*"))
    for root in (home_folder(), INSTALLATION):
        yield from sorted((root / "artifacts").glob("*"))
