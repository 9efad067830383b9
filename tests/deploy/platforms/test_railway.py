"""`.railway/railway.ts`, type-checked and evaluated with Railway's own package."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.platforms.gateways import OMITTED, fill_in, serve_and_predict
from tests.support.paths import BIN, ROOT
from tests.support.polling import PATIENCE_S
from tests.support.redis import Redis
from tests.support.requirements import install_npm_packages

EVALUATE = Path(__file__).with_name("evaluate.mjs")
PUBLIC = "gateway-production.up.railway.app"
PROVIDED = {
    "RAILWAY_PUBLIC_DOMAIN": PUBLIC,
    "RAILWAY_PRIVATE_DOMAIN": "gateway.railway.internal",
    "RAILWAY_PROJECT_ID": "f4a7e0c2-6a1b-4c0e-9f0e-1b6d3f1f8a01",
    "RAILWAY_PROJECT_NAME": "land-use",
    "RAILWAY_ENVIRONMENT_ID": "0b8c5a34-7a70-4b1d-8a54-8f2f5c0d7e02",
    "RAILWAY_ENVIRONMENT_NAME": "production",
    "RAILWAY_SERVICE_ID": "c2f0a9d6-31c4-4e6b-a7b9-5d1e8f4b6c03",
    "RAILWAY_SERVICE_NAME": "gateway",
    "RAILWAY_GIT_COMMIT_SHA": "0" * 40,
}
"""Variables that Railway adds."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `.railway` with the packages of its lock file, whose install scripts do not run."""
    folder = tmp_path_factory.mktemp("railway")
    names = ("package.json", "package-lock.json", "tsconfig.json", "railway.ts")
    install_npm_packages(folder, *(ROOT / ".railway" / name for name in names), EVALUATE)
    return folder


@cache
def evaluate(folder: Path, environment: str) -> Any:
    command: list[str | Path] = [folder / "node_modules/.bin/tsx", EVALUATE.name, environment]
    return json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout)


def read_resource(folder: Path, environment: str, address: str) -> Any:
    (found,) = [each for each in evaluate(folder, environment)["resources"] if each["address"] == address]
    return found


def read_variables(resource: Any) -> dict[str, str]:
    """Return the variables: literal values, names of referenced resources, and OMITTED for preserved secrets."""
    return {
        name: variable.get("value") or variable.get("resource") or OMITTED
        for name, variable in resource["variables"].items()
    }


def test_types(installed: Path) -> None:
    """The file compiles without errors against the package's types, so it contains no unknown field."""
    check = subprocess.run(
        [installed / "node_modules/.bin/tsc", "-p", installed], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout


@pytest.mark.parametrize("environment", ["production", "pr-12"])
def test_graph_is_valid(installed: Path, environment: str) -> None:
    """Railway's own validation finds no problem: names are unique, and references lead to resources."""
    assert evaluate(installed, environment)["problems"] == []


def test_production_deploys_without_interruption(installed: Path) -> None:
    """Production has two replicas that never sleep, a health check, no volume, and time to drain."""
    gateway = read_resource(installed, "production", "service.gateway")
    deploy = gateway["deploy"]
    assert (deploy["numReplicas"], deploy["healthcheckPath"], deploy["sleepApplication"]) == (2, "/readyz", False)
    assert "volumeMounts" not in gateway
    drain = float(read_variables(gateway)["DRAIN_SECONDS"])
    assert isinstance(deploy["drainingSeconds"], int)
    assert deploy["drainingSeconds"] > drain + 8


def test_previews_are_small(installed: Path) -> None:
    """An environment other than production has one replica and no metrics port, and sleeps when it is idle."""
    gateway = read_resource(installed, "pr-12", "service.gateway")
    deploy = gateway["deploy"]
    assert (deploy["numReplicas"], deploy["sleepApplication"]) == (1, True)
    assert "METRICS_PORT" not in gateway["variables"]


def test_no_secret_is_in_the_file(installed: Path) -> None:
    """Keys are preserved from Railway, and the databases' addresses are references."""
    variables = read_resource(installed, "production", "service.gateway")["variables"]
    kinds = {name: variable["type"] for name, variable in variables.items() if variable["type"] != "literal"}
    assert kinds == {
        "AUTH__DATA_KEY": "preserve",
        "AUTH__SIGNING_KEY": "preserve",
        "DATABASE_URL": "reference",
        "LEDGER__SIGNING_KEY": "preserve",
        "REDIS_URL": "reference",
    }


def test_gateway_starts_with_these_variables(
    installed: Path, tmp_path: Path, postgres_url: str, redis_server: Redis
) -> None:
    """A gateway starts with exactly the variables of the file and Railway's own, and serves its public domain."""
    variables = read_variables(read_resource(installed, "production", "service.gateway"))
    shown = {**variables, **PROVIDED}
    environment = fill_in(shown, tmp_path, DATABASE_URL=postgres_url, REDIS_URL=redis_server.url)
    serve_and_predict(tmp_path, environment, PUBLIC, environment["DATABASE_URL"])


def test_upkeep_ends_by_itself(installed: Path, tmp_path: Path, postgres_url: str) -> None:
    """The scheduled command succeeds with its service's variables, and ends, so that Railway skips no later run."""
    upkeep = read_resource(installed, "production", "service.upkeep")
    environment = fill_in(read_variables(upkeep), tmp_path, DATABASE_URL=postgres_url)
    assert upkeep["deploy"]["cronSchedule"]
    for command in ("atalaya db init", upkeep["deploy"]["startCommand"]):
        program, *arguments = command.split()
        run = subprocess.run(
            [BIN / program, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert run.returncode == 0, run.stderr
