"""`atalaya models import` and `add`: add new versions, from an untrusted model file or from an artefact."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from api.commands.database import CommandEvent, migrate_database, write_event
from api.commands.models.signing import FolderArgument, describe_absent, read_key_file
from api.commands.options.gate import PhotosOption, ScenesOption
from api.commands.options.model import find_keras_python
from api.commands.output import JsonFlag, PasswordStdin, format_count, print_json
from api.errors import CommandFailed
from api.services.registry import open_registry
from api.settings import Settings, load_settings
from model.importing.importer import ImportOptions, import_model
from model.registry.artefact import Manifest, list_present, read_manifest
from model.registry.errors import AliasesElsewhere, UnknownModel, VersionExists
from model.registry.state import check_name
from model.signing.folder import sign_folder
from model.signing.keys import PrivateKey


def import_file(  # noqa: PLR0913, PLR0917  (one argument for each option)
    file: Annotated[Path, typer.Argument(help="A .keras or .h5 file, saved by Keras 2.13 to 3.15.")],
    name: Annotated[str, typer.Option(help="The name of the model.")],
    version: Annotated[str, typer.Option(help="For example 1.2.")],
    out: Annotated[
        Path | None, typer.Option(help="The artefact folder to create, instead of a version in MODEL__REGISTRY.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="KEY.pem", help="Sign the artefact with this private key; see `models sign`.")
    ] = None,
    password_stdin: PasswordStdin = False,
    images: Annotated[Path | None, typer.Option(help="Real images to compare the two models on.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled images that the model was not trained on, to fit and measure its confidence."),
    ] = None,
    photos: PhotosOption = None,
    scenes: ScenesOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Import a model file, which may come from an untrusted source. Takes about a minute.

    The file is checked against an allow-list, and converted in a sandbox without access to the network, secrets or
    other files. The result becomes a version in MODEL__REGISTRY without an alias, or with --out an artefact folder.
    Fails with the reason, and writes nothing, if the file is not allowed, exceeds a limit or cannot be served.
    """
    private_key = None if key is None else read_key_file(key, password_stdin)
    settings = load_settings()
    if out is None:
        check_version_is_new(settings, name, version, signed=key is not None)
    with TemporaryDirectory(prefix="atalaya-import-") as scratch:
        folder = Path(scratch) / f"{name}-v{version}" if out is None else out
        options = ImportOptions(file, folder, name, version, images, data, photos, scenes)
        manifest = import_signed(options, private_key)
        if out is None:
            folder = add_to_registry(settings, folder, manifest)
    golden = manifest.results["golden"]
    if as_json:
        print_json({"model": manifest.full_name, "folder": str(folder), "golden": golden})
        return
    typer.echo(f"Imported {manifest.full_name} to {folder}.")
    _print_golden(golden)


def add(folder: FolderArgument, as_json: JsonFlag = False) -> None:
    """Copy an artefact, such as one that `atalaya export` made, into MODEL__REGISTRY as a new version."""
    settings = load_settings()
    manifest = read_manifest(folder)
    migrate_database(settings)
    target = add_to_registry(settings, folder, manifest)
    absent = sorted(manifest.files.keys() - list_present(target, manifest))
    if as_json:
        print_json({"model": manifest.full_name, "folder": str(target), "absent": absent})
    else:
        typer.echo(f"Added {manifest.full_name} to {target}. No alias points to it yet.{describe_absent(absent)}")


def import_signed(options: ImportOptions, key: PrivateKey | None) -> Manifest:
    """Import a model file, and sign the artefact if there is a key. Raises ImportRefused, KerasMissing."""
    manifest = import_model(options, find_keras_python())
    if key is not None:
        sign_folder(options.out, key)
    return manifest


def check_version_is_new(settings: Settings, name: str, version: str, *, signed: bool) -> None:
    """Fail before the work if the version exists, or if it is unsigned but must be signed.

    Raises RegistryError, CommandFailed, DatabaseMissing.
    """
    if settings.model.is_mirrored:
        raise AliasesElsewhere
    migrate_database(settings)
    try:
        exists = check_name(version) in open_registry(settings).read(name).versions
    except UnknownModel:
        exists = False
    if exists:
        raise VersionExists(f"{name} {version} already exists. A version never changes: choose another one.")
    if not signed and settings.artefact_key() is not None:
        raise CommandFailed(
            "The versions of this registry must be signed. Add --key KEY.pem; see `atalaya models sign`."
        )


def add_to_registry(settings: Settings, folder: Path, manifest: Manifest) -> Path:
    """Add the artefact, verified as the gateway would, and record it in the audit log; return its folder."""
    if settings.model.is_mirrored:
        raise AliasesElsewhere
    registry = open_registry(settings)
    version = registry.add(folder, settings.artefact_key())
    detail = {"version": version.version, "manifest": version.manifest_sha256}
    event = CommandEvent("model", "added", f"model:{manifest.name}", detail)
    write_event(settings, event)
    return registry.find_folder(manifest.name, version.version)


def _print_golden(golden: dict[str, Any]) -> None:
    if "accuracy" in golden:
        accuracy, error = golden["accuracy"], golden["ece"]
        typer.echo(
            f"Accuracy {accuracy:.4f}, calibration error {error:.4f} on {format_count(golden['images'], 'image')}."
        )
    latency = golden["latency_ms"]
    typer.echo(f"{latency['median']:g} ms per image, p95 {latency['p95']:g} ms; {golden['memory_mb']:g} MB of memory.")
