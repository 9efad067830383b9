"""The MLflow server and the mirror that the settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from api.errors import SettingsError
from api.services.registry import open_registry
from api.settings import Settings

if TYPE_CHECKING:
    from model.registry.mlflow.mirror import Mirror
    from model.registry.mlflow.server import MlflowServer


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
            move=lambda targets: registry.move_aliases(reference.model, targets),
        )
