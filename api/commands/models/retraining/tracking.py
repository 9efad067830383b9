"""Logs the trials of a retraining to an MLflow server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from api.commands.gateway.failures import check_url
from api.services.mirror.opening import open_server
from api.settings import Settings
from model.registry.errors import RegistryError
from monitoring.redaction import to_printable

if TYPE_CHECKING:
    from model.registry.mlflow.server import MlflowServer

Track = Callable[[str, dict[str, Any]], None]


@contextmanager
def open_tracking(settings: Settings, url: str | None) -> Iterator[Track]:
    """Yield a function that logs the metrics.json of a run under a name; without a URL it logs nothing.

    Before the retraining, an unavailable server is an error. Afterwards it is only a warning: the result matters more.
    Raises RegistryUnavailable, RegistryAccessDenied.
    """
    if url is None:
        yield lambda _name, _metrics: None
        return
    with open_server(settings, _check_url(url)) as server:
        from model.registry.mlflow.runs import find_experiment  # loads httpx

        experiment = find_experiment(server)

        def track(name: str, metrics: dict[str, Any]) -> None:
            try:
                _log(server, experiment, name, metrics)
            except RegistryError as error:
                typer.echo(f"The trials were not tracked: {to_printable(str(error))}", err=True)

        yield track


def _log(server: MlflowServer, experiment: str, name: str, metrics: dict[str, Any]) -> None:
    """Log a run for the candidate, and a child run for each trial."""
    from model.registry.mlflow.runs import LoggedRun, log_run

    search, comparison = metrics["search"], metrics["comparison"]
    candidate = LoggedRun(
        name,
        {"start": metrics["init"]["name"], "budget_minutes": str(search["budget_minutes"])},
        {
            "test_accuracy": metrics["test"]["accuracy"],
            "start_test_accuracy": comparison["start_correct"] / comparison["images"],
            "val_accuracy": metrics["validation"]["accuracy"],
        },
    )
    parent = log_run(server, experiment, candidate)
    for trial in search["trials"]:
        parameters = {key: str(value) for key, value in {**trial["choice"], "epochs": trial["epochs"]}.items()}
        log_run(server, experiment, LoggedRun(f"{name} trial {trial['name']}", parameters, trial["results"]), parent)


def _check_url(url: str) -> str:
    """Return the address without a final slash. Raises BadParameter."""
    check_url(url, "--tracking")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.username is not None:
        raise typer.BadParameter(
            "It must be http://HOST[:PORT] or https://HOST[:PORT]. Set credentials in the settings.",
            param_hint="--tracking",
        )
    return url.rstrip("/")
