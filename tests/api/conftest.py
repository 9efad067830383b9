"""A gateway in the test's own process, with a real database, real tokens and the stub back end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import Settings
from auth.principal import Role
from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from tests.support.gateway import PASSWORD, create_database

MakeClient = Callable[..., TestClient]
LogIn = Callable[..., dict[str, str]]
Bearers = Mapping[str, dict[str, str]]


@pytest.fixture(autouse=True)
def prompt_entries(patient_commits: None) -> None:
    """Many tests of this package read a prediction from the database right after its response."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return build_settings(tmp_path, ana=Role.CLIENT, olga=Role.OPERATOR)


def build_settings(folder: Path, **users: Role) -> Settings:
    database_url = f"sqlite:///{folder}/gateway.db"
    create_database(database_url, **users)
    return Settings(
        database_url=database_url,
        allowed_hosts=("testserver",),
        auth={"signing_key": generate_signing_key("ES256")},
        model={"url": "stub://", "workers": 2},
        ledger={"signing_key": new_private_key(), "spool_folder": folder / "spool"},
    )


@pytest.fixture
def make_client(settings: Settings) -> Iterator[MakeClient]:
    """Start a gateway with changed settings; it has the users `ana` (client) and `olga` (operator)."""
    with ExitStack() as stack:

        def make(
            *, raise_errors: bool = True, reporter: Any = None, open_model: Any = None, **changes: Any
        ) -> TestClient:
            changed = settings.model_copy(update=changes)
            app = create_app(changed, registry=CollectorRegistry(), reporter=reporter, open_model=open_model)
            return stack.enter_context(TestClient(app, raise_server_exceptions=raise_errors))

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()


@pytest.fixture
def password() -> str:
    return PASSWORD


@pytest.fixture
def log_in() -> LogIn:
    """Return the Authorization header of a new token."""

    return request_token


def request_token(client: TestClient, name: str = "ana", scope: str = "") -> dict[str, str]:
    form = {"grant_type": "password", "username": name, "password": PASSWORD, "scope": scope}
    response = client.post("/auth/token", data=form)
    assert response.status_code == 200, response.text
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


@pytest.fixture
def bearer(client: TestClient, log_in: LogIn) -> dict[str, str]:
    return log_in(client)


@pytest.fixture
def operator(client: TestClient, log_in: LogIn) -> dict[str, str]:
    """The credentials of `olga`."""
    return log_in(client, "olga")


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One gateway for the tests of a file that change nothing in it: to start one takes longer than such a test."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATALAYA_HOME", str(folder))
        settings = build_settings(folder, ana=Role.CLIENT, olga=Role.OPERATOR, root=Role.ADMIN)
        with TestClient(create_app(settings, registry=CollectorRegistry())) as client:
            yield client


@pytest.fixture(scope="module")
def shared_bearers(shared_client: TestClient) -> Bearers:
    """The Authorization headers of `ana`, `olga` and the administrator `root` for `shared_client`."""
    return {name: request_token(shared_client, name) for name in ("ana", "olga", "root")}


@pytest.fixture(scope="session")
def sample() -> bytes:
    return (Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg").read_bytes()
