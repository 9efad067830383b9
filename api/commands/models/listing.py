"""`atalaya models list` and `show`: what the registry holds."""

from __future__ import annotations

from typing import Annotated

import typer

from api.commands.models.aliases import NameArgument
from api.commands.output import JsonFlag, format_time, print_json, print_table
from api.schemas.models import ModelDetails, ModelSummary, VersionDetails
from api.services.registry import open_registry
from api.settings import load_settings
from model.registry.artefact import read_manifest


def list_models(as_json: JsonFlag = False) -> None:
    """List the models of the registry, and what their aliases point to."""
    registry = open_registry(load_settings())
    models = [ModelSummary.of(name, registry.read(name)) for name in registry.list_models()]
    if as_json:
        print_json([model.model_dump() for model in models])
        return
    print_table(
        ("model", "versions", "aliases"),
        [(model.name, str(model.versions), _join(model.aliases)) for model in models],
    )


def show(
    name: NameArgument,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="Show this version, or @ALIAS.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the versions of a model, or one of them with its classes, files and results."""
    registry = open_registry(load_settings())
    state = registry.read(name)
    if version is not None:
        listed = state.find(version)
        manifest = read_manifest(registry.find_folder(name, version))
        _print_version(VersionDetails.of_manifest(listed, state, manifest), as_json)
        return
    model = ModelDetails.of(name, state)
    if as_json:
        print_json(model.model_dump(mode="json"))
        return
    print_table(
        ("version", "added (UTC)", "aliases", "tags"),
        [
            (each.version, format_time(each.added_at), ", ".join(each.aliases), _join(each.tags))
            for each in model.versions
        ],
    )


def _print_version(details: VersionDetails, as_json: bool) -> None:
    if as_json:
        print_json(details.model_dump(mode="json"))
        return
    golden = details.results.get("golden", {})
    rows = {
        "version": details.version,
        "added (UTC)": format_time(details.added_at),
        "manifest": details.manifest_sha256,
        "aliases": ", ".join(details.aliases),
        "tags": _join(details.tags),
        "classes": f"{len(details.classes)}: {', '.join(details.classes)}",
        "files": ", ".join(f"{name} ({size:,} bytes)" for name, size in details.files.items()),
        "measured at import": ", ".join(f"{name} {value}" for name, value in golden.items()),
    }
    for label, value in rows.items():
        if value:
            typer.echo(f"{label:20}{value}")


def _join(pairs: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in pairs.items())
