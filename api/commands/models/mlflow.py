"""`atalaya models publish` and `pull`: upload artefacts to an MLflow server, and copy them from one to the mirror."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.commands.gateway.failures import check_url
from api.commands.output import JsonFlag, print_json
from api.errors import CommandFailed
from api.services.mirror.opening import open_mirror, open_server
from api.settings import load_settings
from api.settings.home import read_mlflow_address, resolve_registry_url


def publish(
    folder: Annotated[Path, typer.Argument(help="An artefact folder, signed if the gateway requires signatures.")],
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="mlflow+http://HOST:PORT. Default: MODEL__REGISTRY.")
    ] = None,
    alias: Annotated[
        str | None, typer.Option(help="Point this alias to the new version, for example production.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Upload an artefact to an MLflow server, as a new version of the registered model that the manifest names.

    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, are the credentials.
    """
    from model.registry.mlflow import publishing  # loads httpx

    settings = load_settings()
    url = settings.model.mlflow_url if to is None else _read_address(to)
    if url is None:
        raise CommandFailed("MODEL__REGISTRY names no MLflow server. Give its address: --to mlflow+http://HOST:PORT.")
    with open_server(settings, url) as server:
        published = publishing.publish(server, folder, settings.artefact_key(), alias)
    if as_json:
        print_json({"model": published.model, "version": published.version, "mlflow_version": published.number})
        return
    named = f" {alias!r} points to it now." if alias else ""
    typer.echo(f"{published.model} {published.version} is version {published.number} in MLflow.{named}")


def pull(as_json: JsonFlag = False) -> int:
    """Copy the versions that have an alias from the MLflow server in MODEL__REGISTRY to MODEL__MIRROR_FOLDER.

    A running gateway does this every two seconds.
    """
    with open_mirror(load_settings()) as mirror:
        pulled = mirror.pull()
    if as_json:
        refused = {alias: {"code": error.code, "detail": str(error)} for alias, error in pulled.refused.items()}
        print_json({"moved": pulled.moved, "refused": refused})
    else:
        for alias, version in pulled.moved.items():
            typer.echo(f"{alias} now points to {version}." if version else f"{alias} was removed.")
        for alias, error in pulled.refused.items():
            typer.echo(f"{alias} was not moved: {error}", err=True)
    return 1 if pulled.refused else 0


def _read_address(url: str) -> str:
    """Raises BadParameter."""
    try:
        address = read_mlflow_address(resolve_registry_url(url))
    except ValueError:
        address = None
    if address is None:
        raise typer.BadParameter(
            "It must be mlflow+http://HOST[:PORT] or mlflow+https://HOST[:PORT].", param_hint="--to"
        )
    check_url(address, "--to")
    return address
