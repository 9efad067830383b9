"""The MLflow server and the mirror that the settings name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import structlog

from api.errors import SettingsError
from api.services.aliases.moves import record_moves
from api.services.registry import open_registry
from api.settings import Settings
from model.registry.files import FileRegistry
from monitoring.errors import MonitoringError
from storage.engine import sqlite_path
from storage.errors import StorageError

if TYPE_CHECKING:
    from model.registry.mlflow.mirror import Mirror
    from model.registry.mlflow.server import MlflowServer

log = structlog.get_logger("atalaya.model")


@contextmanager
def open_server(settings: Settings, url: str) -> Iterator[MlflowServer]:
    """Open the MLflow server at `url` with the credentials of the settings."""
    from model.registry.mlflow.server import Credentials, MlflowServer  # loads httpx

    password, token = settings.mlflow_tracking_password, settings.mlflow_tracking_token
    credentials = Credentials(
        settings.mlflow_tracking_username,
        password.get_secret_value() if password else None,
        token.get_secret_value() if token else None,
    )
    with closing(MlflowServer(url, credentials)) as server:
        yield server


@contextmanager
def open_mirror(settings: Settings) -> Iterator[Mirror]:
    """Open the mirror of the model that MODEL__URL names. Raises SettingsError."""
    from model.registry.mlflow.mirror import Mirror

    url, reference = settings.model.mlflow_url, settings.model.reference
    if url is None or reference is None:
        raise SettingsError(
            "Nothing can be pulled: MODEL__REGISTRY must name an MLflow server (mlflow+http://HOST:PORT), and "
            "MODEL__URL a model in it (registry://NAME@ALIAS)."
        )
    registry = open_registry(settings)
    with open_server(settings, url) as server:
        yield Mirror(
            server,
            settings.model.mirror_folder,
            model=reference.model,
            key=settings.artefact_key(),
            move=lambda targets: _move(settings, registry, reference.model, targets),
        )


def _move(settings: Settings, registry: FileRegistry, model: str, targets: Mapping[str, str | None]) -> None:
    """Move the aliases, and record that; if it cannot be recorded now, a later move or start of a gateway does."""
    registry.move_aliases(model, targets, who="mlflow", why="The alias was moved on the MLflow server.")
    database = sqlite_path(settings.database_url.get_secret_value())
    try:
        if database is None or database.exists():  # opening the file would create it
            record_moves(settings, registry, model)
    except (SettingsError, MonitoringError, StorageError) as error:
        log.warning("alias_moves_unrecorded", code=error.code, policy="the next move or start records them")
