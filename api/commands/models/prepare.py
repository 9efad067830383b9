"""`atalaya models prepare`: optimise the model for this machine now, so that already the first start uses the copy."""

from __future__ import annotations

import typer

from api.commands.output import JsonFlag, print_json
from api.errors import CommandFailed
from api.services.preparation import find_copies
from api.settings import load_settings
from model.backends.onnx import MODEL_FILE
from model.backends.prepared.builder import build_copy
from model.errors import ArtefactError
from model.registry.artefact import read_manifest
from model.signing.folder import verify_folder


def prepare(as_json: JsonFlag = False) -> None:
    """Optimise the model of MODEL__URL for this machine, unless that was done."""
    settings = load_settings()
    if not settings.model.url.startswith("onnx://"):
        raise CommandFailed("Only models in ONNX format are prepared. Set MODEL__URL to onnx://FOLDER.")
    copies = find_copies(settings)
    if copies is None:
        raise CommandFailed("This needs LEDGER__SIGNING_KEY (`atalaya secrets init` adds it), and MODEL__PREPARE=true.")
    key = settings.artefact_key()
    signed = None if key is None else verify_folder(settings.model.artefact_folder, key, complete=False).files
    manifest = read_manifest(settings.model.artefact_folder, signed)
    if MODEL_FILE not in manifest.files:
        raise ArtefactError(f"The manifest in {settings.model.artefact_folder} does not list {MODEL_FILE}.")
    digest = manifest.files[MODEL_FILE].sha256
    built = build_copy(copies, settings.model.artefact_folder, digest)
    folder = copies.folder / copies.name_copy(digest)
    if as_json:
        print_json({"model": manifest.full_name, "digest": digest, "built": built, "folder": str(folder)})
    else:
        typer.echo(
            f"{manifest.full_name} {'is now' if built else 'was already'} prepared for this machine in {folder}."
        )
