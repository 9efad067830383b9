"""`atalaya models prepare`: optimise the model for this machine now, so that the first start uses the copy at once."""

from __future__ import annotations

from pathlib import Path

import typer

from api.commands.output import JsonFlag, print_json
from api.errors import CommandFailed
from api.services.prepared_copies.finding import find_copies
from api.services.registry import find_model_url
from api.settings import load_settings
from model.backends.onnx import MODEL_FILE
from model.backends.prepared.builder import build_copy
from model.errors import ArtefactError
from model.registry.artefact import read_manifest
from model.signing.required import verify_required


def prepare(as_json: JsonFlag = False) -> None:
    """Optimise the model in MODEL__URL for this machine, unless that has already been done."""
    settings = load_settings()
    scheme, _, path = find_model_url(settings).partition("://")
    if scheme != "onnx":
        raise CommandFailed("Only models that run on the CPU are prepared. Set MODEL__URL to onnx://FOLDER.")
    copies = find_copies(settings)
    if copies is None:
        raise CommandFailed("This needs LEDGER__SIGNING_KEY (`atalaya secrets init` adds it), and MODEL__PREPARE=true.")
    folder = Path(path)
    manifest = read_manifest(folder, verify_required(folder, settings.artefact_key()))
    if MODEL_FILE not in manifest.files:
        raise ArtefactError(f"The manifest in {folder} does not list {MODEL_FILE}.")
    digest = manifest.files[MODEL_FILE].sha256
    built = build_copy(copies, folder, digest)
    prepared = copies.folder / copies.name_copy(digest)
    if as_json:
        print_json({"model": manifest.full_name, "digest": digest, "built": built, "folder": str(prepared)})
    else:
        typer.echo(
            f"{manifest.full_name} {'is now' if built else 'was already'} prepared for this machine in {prepared}."
        )
