"""One MLflow server for all tests in this folder; each test uses its own registered model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from model.registry.files import FileRegistry
from model.registry.mlflow.mirror import Mirror
from model.registry.mlflow.server import MlflowServer
from model.signing.keys import PublicKey
from tests.model.registry.mlflow.servers import RunningMlflow, open_client, running_mlflow

MakeMirror = Callable[..., Mirror]


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMlflow]:
    """A real MLflow server."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def server(mlflow: RunningMlflow) -> Iterator[MlflowServer]:
    """A client of the MLflow server."""
    with open_client(mlflow) as client:
        yield client


@pytest.fixture
def name() -> str:
    """The name of a model that no other test uses."""
    return f"model-{uuid4().hex[:12]}"


@pytest.fixture
def make_mirror(server: MlflowServer, name: str, tmp_path: Path) -> MakeMirror:
    """A function that opens the mirror of the model in `tmp_path`, with a key or without."""

    def make(key: PublicKey | None = None, **options: Any) -> Mirror:
        folder = tmp_path / "mirror"
        registry = FileRegistry(folder)
        defaults = {
            "move": lambda targets, expected: registry.move_aliases(
                name, targets, who="mlflow", why="a test", expected=expected
            ),
            "served": ["production"],
        }
        return Mirror(server, folder, model=name, key=key, **{**defaults, **options})

    return make
