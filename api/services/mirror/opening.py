"""Opens the MLflow server and the mirror that the settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from api.errors import SettingsError
from api.services.aliases.moves import record_moves
from api.services.registry import open_registry
from api.settings import Settings, sqlite_file
from model.canary.assignment import Mode
from model.registry.errors import UnknownModel
from model.registry.files import FileRegistry
from monitoring.errors import MonitoringError
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
            "There is nothing to pull: MODEL__REGISTRY must name an MLflow server (mlflow+http://HOST:PORT), and "
            "MODEL__URL a model in it (registry://NAME@ALIAS)."
        )
    registry = open_registry(settings)
    with open_server(settings, url) as server:
        yield Mirror(
            server,
            settings.model.mirror_folder,
            model=reference.model,
            key=settings.artefact_key(),
            move=lambda targets, expected: registry.move_aliases(
                reference.model,
                targets,
                who="mlflow",
                why="The alias was moved on the MLflow server.",
                expected=expected,
            ),
            served=list_served(settings),
            record_moves=MoveRecorder(settings, registry, reference.model).record,
        )


def list_served(settings: Settings) -> list[str]:
    """Return the aliases whose versions the gateway loads, the one in MODEL__URL first."""
    reference, canary = settings.model.reference, settings.canary
    served = [] if reference is None else [reference.alias]
    return served if canary.mode is Mode.OFF else [*served, canary.alias]


class MoveRecorder:
    """Records in the ledger the moves of a model's aliases that are not recorded yet."""

    def __init__(self, settings: Settings, registry: FileRegistry, model: str) -> None:
        self._settings = settings
        self._registry = registry
        self._model = model
        self._problem: str | None = None

    def record(self) -> None:
        """Record the moves. A failure is logged once, and the next call tries again. Raises RegistryError."""
        with suppress(UnknownModel):
            if self._registry.read(self._model).unrecorded and self._has_database():
                self._record()

    def _record(self) -> None:
        try:
            record_moves(self._settings, self._registry, self._model)
        except (SettingsError, MonitoringError, StorageError) as error:
            if error.code != self._problem:
                log.warning("alias_moves_unrecorded", code=error.code, policy="the gateway tries again at each poll")
            self._problem = error.code
        else:
            self._problem = None

    def _has_database(self) -> bool:
        """Whether the database exists: opening an SQLite file would create it."""
        database = sqlite_file(self._settings.database_url.get_secret_value())
        return database is None or database.exists()
