"""`atalaya models sign` and `verify`: the signatures of artefact folders, and of versions in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from api.commands.output import JsonFlag, PasswordStdin, format_count, print_json, read_password
from api.errors import CommandFailed
from api.services.registry import open_registry
from api.settings import load_settings
from model.registry.artefact import SIGNATURE
from model.registry.verification import verify_artefact
from model.signing.errors import SigningKeyRejected
from model.signing.folder import sign_folder, verify_folder
from model.signing.keys import (
    RELEASE_KEY,
    PrivateKey,
    PublicKey,
    encode_public_key,
    fingerprint,
    is_encrypted,
    read_private_key,
    read_public_key,
)

FolderArgument = Annotated[Path, typer.Argument(help="An artefact folder.")]


def sign(
    folder: FolderArgument,
    key: Annotated[Path, typer.Option(metavar="KEY.pem", help="The private key, on the curve P-256, in PEM.")],
    password_stdin: PasswordStdin = False,
    as_json: JsonFlag = False,
) -> None:
    """Write FOLDER/model.sig, an OpenSSF Model Signing v1.0 signature, and print the setting that verifies it."""
    private_key = read_key_file(key, password_stdin)
    verify_artefact(folder)  # do not sign a folder that the gateway could not serve
    statement = sign_folder(folder, private_key)
    public_key = encode_public_key(private_key.public_key())
    if as_json:
        print_json({"signature": str(folder / SIGNATURE), "files": dict(statement.files), "verify_key": public_key})
        return
    files = format_count(len(statement.files), "file")
    typer.echo(f"{folder / SIGNATURE} signs {files}. The gateway verifies it with:", err=True)
    typer.echo(f"MODEL__VERIFY_KEY={public_key}")


def verify(
    target: Annotated[
        Path, typer.Argument(metavar="FOLDER|NAME", help="An artefact folder, or a model of the registry.")
    ],
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="A version of NAME, or @ALIAS.")] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="PUB.pem", help="The public key in PEM. Default: the one that production would use."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify that FOLDER, or a version in the registry, contains only signed files, and that they are unchanged.

    Lists signed files that are absent, such as model.keras in the container image. Files that serving needs must be
    present.
    """
    public_key = _read_public_key(key)
    if version is None and not target.is_dir():
        raise CommandFailed(f"{target} is not a folder. To verify a model of the registry, add its version or @ALIAS.")
    folder = target if version is None else open_registry(load_settings()).find_folder(str(target), version)
    statement = verify_folder(folder, public_key, complete=False)
    verify_artefact(folder)
    absent = sorted(name for name in statement.files if not (folder / name).exists())
    if as_json:
        print_json({"key": fingerprint(public_key), "files": dict(statement.files), "absent": absent})
        return
    present = format_count(len(statement.files) - len(absent), "file")
    typer.echo(f"The signature is valid: {present}, key {fingerprint(public_key)}.{describe_absent(absent)}")


def describe_absent(names: Sequence[str]) -> str:
    """Return a sentence, after a space, that names the files that an artefact folder lacks; "" if it lacks none."""
    return f" The folder lacks {', '.join(names)}, which serving does not need." if names else ""


def read_key_file(path: Path, password_stdin: bool) -> PrivateKey:
    """Read a private key, and its password if it has one. Raises SigningKeyRejected, CommandFailed."""
    pem = _read(path)
    password = read_password(password_stdin) if is_encrypted(pem) else None
    try:
        return read_private_key(pem, password)
    except SigningKeyRejected as error:
        raise SigningKeyRejected(f"{path}: {error}") from None


def _read_public_key(path: Path | None) -> PublicKey:
    if path is None:
        return read_public_key(load_settings().model.verify_key or RELEASE_KEY)
    try:
        return read_public_key(_read(path).decode(errors="replace"))
    except SigningKeyRejected as error:
        raise SigningKeyRejected(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise CommandFailed(f"{path} cannot be read: {reason}. Choose another --key.") from error
