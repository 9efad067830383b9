"""Start a gateway in the environment of a hosting platform, and use it as the platform's callers do."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from os import environ
from pathlib import Path
from secrets import token_bytes

from auth.principal import Role
from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from tests.support.gateway import Gateway, create_database
from tests.support.paths import FOREST
from tests.support.ports import free_port

OMITTED = "…"
"""The placeholder on a page for a secret that the reader generates."""


def fill_in(shown: Mapping[str, str], folder: Path, **addresses: str) -> dict[str, str]:
    """Return the variables that a page shows, with real secrets, ports, database `addresses` and home folder.

    No other variables are added except PATH and ATALAYA_HOME.
    """
    values = {
        **addresses,
        "PORT": str(free_port()),
        "METRICS_PORT": str(free_port()),
        "ATALAYA_HOME": str(folder),
    }
    secrets = {
        "AUTH__SIGNING_KEY": generate_signing_key("ES256").replace("\n", "\\n"),  # in one line
        "AUTH__DATA_KEY": b64encode(token_bytes(32)).decode(),
        "LEDGER__SIGNING_KEY": new_private_key(),
    }
    filled = {name: secrets[name] if text == OMITTED else values.get(name, text) for name, text in shown.items()}
    return {**filled, "PATH": environ["PATH"], "ATALAYA_HOME": str(folder)}


def serve_and_predict(folder: Path, environment: dict[str, str], host: str, database_url: str) -> None:
    """Start the gateway, make a prediction under its public host name, and stop it. Raises AssertionError.

    Health checks do not use the gateway's host name.
    """
    create_database(database_url, ana=Role.CLIENT)
    gateway = Gateway(folder, environment)
    try:
        gateway.start()
        assert gateway.get("/readyz", headers={"Host": "healthcheck.railway.app"}).is_success
        headers = {"Host": host, "Authorization": f"Bearer {gateway.token()}"}
        prediction = gateway.post("/v1/predictions", headers=headers, files={"file": FOREST.read_bytes()})
        assert prediction.json()["label"] == "forest", prediction.text
        assert gateway.stop() == 0, gateway.log()
    finally:
        if gateway.is_running:
            gateway.kill()
