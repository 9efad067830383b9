"""The environment variables on the pages about hosting platforms."""

from __future__ import annotations

import re
import tomllib
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from dotenv import dotenv_values

from tests.contract.documents.markdown import read_blocks
from tests.deploy.platforms.gateways import fill_in, serve_and_predict
from tests.support.paths import ROOT

FOLDER = ROOT / "docs" / "deploy"
SECRETS = {"AUTH__SIGNING_KEY", "AUTH__DATA_KEY", "LEDGER__SIGNING_KEY"}


def read_block(page: str, language: str) -> str:
    """Return the only code block of a page in that language."""
    (text,) = [text for found, text in read_blocks(FOLDER / page) if found == language]
    return text


def read_environment(page: str) -> dict[str, str]:
    """Return the variables of a page's dotenv block, and of its fly.toml if it has one."""
    languages = {language for language, _ in read_blocks(FOLDER / page)}
    declared = tomllib.loads(read_block(page, "toml"))["env"] if "toml" in languages else {}
    shown = dotenv_values(stream=StringIO(read_block(page, "dotenv")), interpolate=False)
    return {**declared, **{name: value or "" for name, value in shown.items()}}


def read_drain_seconds(page: str) -> float:
    return float(read_environment(page).get("DRAIN_SECONDS", "2"))


@pytest.mark.parametrize("page", ["heroku.md", "fly.md", "cloud-run.md"])
def test_gateway_starts_in_the_environment_of_the_page(page: str, tmp_path: Path, postgres_url: str) -> None:
    """With the variables that the page shows, a gateway with PostgreSQL predicts under its issuer's host name."""
    shown = read_environment(page)
    assert {name for name, value in shown.items() if value == "…"} == SECRETS
    assert shown["DATABASE_URL"].startswith("postgres://")
    _, question_mark, options = shown["DATABASE_URL"].partition("?")
    url = postgres_url.replace("postgresql://", "postgres://") + question_mark + options
    environment = fill_in(shown, tmp_path, DATABASE_URL=url)
    serve_and_predict(tmp_path, environment, urlsplit(shown["AUTH__ISSUER"]).netloc, environment["DATABASE_URL"])


def test_fly_checks_and_stops_the_gateway() -> None:
    """fly.toml uses the ports of its environment for requests and metrics, and lets the gateway drain."""
    config: dict[str, Any] = tomllib.loads(read_block("fly.md", "toml"))
    service, (check,) = config["http_service"], config["http_service"]["checks"]
    assert (str(service["internal_port"]), str(config["metrics"]["port"])) == (
        config["env"]["PORT"],
        config["env"]["METRICS_PORT"],
    )
    assert (check["method"], check["path"]) == ("GET", "/readyz")
    assert config["kill_signal"] == "SIGTERM"
    assert config["kill_timeout"] > read_drain_seconds("fly.md") + 8


def test_cloud_run_ends_before_it_is_killed() -> None:
    """The gateway shuts down before Cloud Run kills it ten seconds after SIGTERM, and `--port` equals PORT."""
    assert read_drain_seconds("cloud-run.md") + 8 < 10
    ports = re.findall(r"--port (\d+)", read_block("cloud-run.md", "sh"))
    assert ports == [read_environment("cloud-run.md")["PORT"]]


def test_heroku_builds_the_dockerfile() -> None:
    """heroku.yml names the project's Dockerfile and no command, because the image has one."""
    assert yaml.safe_load(read_block("heroku.md", "yaml")) == {"build": {"docker": {"web": "Dockerfile"}}}
    assert (ROOT / "Dockerfile").is_file()
