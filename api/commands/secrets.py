"""`atalaya secrets`: keys that must not have a default."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from api.commands.database import CommandEvent, recorded_run, run_with_engine
from api.commands.gateway.compose_archive import build_compose_archive
from api.commands.output import JsonFlag, print_json
from api.errors import CommandFailed, SettingsError
from api.production import find_secret_problems
from api.services.secrets.signing_keys import find_activation_delay
from api.settings import Settings, home_folder, load_settings
from api.settings.loading import is_set_in_env_file
from api.settings.reading.variables import parse_env_text, read_env_text, set_in_env_text
from auth.login.data_keys import new_data_key
from auth.tokens.jws import generate_signing_key
from auth.tokens.keyring import rotate_bundle
from monitoring.chains.signing import new_private_key
from monitoring.tasks.runs import Task
from storage.private_files import replace_private_file, restrict_file

app = typer.Typer(no_args_is_help=True)
_SIGNING_KEY = "AUTH__SIGNING_KEY"
_DATA_KEY = "AUTH__DATA_KEY"
_LEDGER_KEY = "LEDGER__SIGNING_KEY"
_KEYS = (_SIGNING_KEY, _DATA_KEY, _LEDGER_KEY)
_ALGORITHM = "AUTH__SIGNING_ALGORITHM"


@app.command("init")
def init() -> None:
    """Add the keys that are missing from .env; nothing else in the file changes."""
    if not add_secrets(_KEYS):
        typer.echo(f"{env_file()} already has the secrets.", err=True)


@app.command("print")
def print_secrets(
    compose: Annotated[
        bool,
        typer.Option("--compose", help="Write a tar archive of the files that docker-compose.yml needs instead."),
    ] = False,
) -> None:
    """Print new keys as lines for .env or for a platform's settings; nothing is stored."""
    if not compose:
        for name in _KEYS:
            typer.echo(_format_line(name, _generate(name, "ES256")))
        return
    if sys.stdout.isatty():
        raise CommandFailed("--compose writes an archive: append `| tar -xkp`, which keeps the files that exist.")
    typer.echo(build_compose_archive({name: _generate(name, "ES256") for name in _KEYS}), nl=False)


def env_file() -> Path:
    return home_folder() / ".env"


def find_missing_secrets(settings: Settings) -> list[str]:
    """Return the names of the required secrets that are set neither in the environment nor in .env."""
    present = {
        _SIGNING_KEY: settings.auth.signing_key or settings.auth.signing_key_file,
        _DATA_KEY: settings.auth.data_key,
        _LEDGER_KEY: settings.ledger.signing_key,
    }
    return [name for name, value in present.items() if value is None]


def add_secrets(names: Iterable[str]) -> bool:
    """Add the secrets that .env lacks or leaves empty, and report that. Returns whether there were any."""
    path = env_file()
    restrict_file(path)
    values = parse_env_text(read_env_text())
    missing = [name for name in names if name not in values]
    if not missing:
        return False
    algorithm: Literal["ES256", "HS256"] = "HS256" if values.get(_ALGORITHM) == "HS256" else "ES256"
    _write_env_file({name: _generate(name, algorithm) for name in missing})
    typer.echo(f"New keys are in {path}.", err=True)
    return True


def _generate(name: str, algorithm: Literal["ES256", "HS256"]) -> str:
    if name == _SIGNING_KEY:
        return generate_signing_key(algorithm)
    return new_data_key() if name == _DATA_KEY else new_private_key()


def _format_line(name: str, value: str) -> str:
    return format_signing_key(value) if name == _SIGNING_KEY else f"{name}={value}"


def _write_env_file(values: Mapping[str, str]) -> None:
    """Set variables in .env. Raises SettingsError."""
    file = env_file()
    text = read_env_text()
    for name, value in values.items():
        text = set_in_env_text(text, name, _format_line(name, value))
    written = parse_env_text(text)
    if any(written.get(name) != value.strip() for name, value in values.items()):
        # For example, a quotation mark that nothing closes swallows the lines after it.
        raise SettingsError(f"{file} was not changed: its new keys could not be read. Check its quotation marks.")
    _replace_private(file, text)


@app.command("check")
def check(as_json: JsonFlag = False) -> None:
    """Check the secrets that `serve` would use, and list those that are missing or weak, without showing them."""
    problems: Sequence[str] = ()
    try:
        load_settings(lambda settings: [*find_secret_problems(settings), *_describe_missing(settings)])
    except SettingsError as error:
        problems = error.problems
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    if problems:
        raise SettingsError(*problems)
    if not as_json:
        typer.echo("All secrets are set, and none is weak.")


def _describe_missing(settings: Settings) -> list[str]:
    """Name the missing secrets without which the gateway starts, but a feature does not work."""
    if settings.auth.data_key is not None:
        return []
    return [f"{_DATA_KEY} is not set: users cannot turn on one-time codes. Run `atalaya secrets init` to add one."]


def check_rotation(settings: Settings) -> None:
    """Check that there is a signing key, and that it can be replaced where it is stored. Raises SettingsError."""
    settings.signing_keys()
    if settings.auth.signing_key_file is None and not is_set_in_env_file(_SIGNING_KEY):
        raise SettingsError(
            "AUTH__SIGNING_KEY is not read from .env. `atalaya keys rotate --print` prints the new value: store it "
            "where the old one is."
        )


def rotate_signing_key(settings: Settings) -> str:
    """Add a new signing key to the existing ones; returns what the operator has to do next. Raises SettingsError."""

    async def rotate(_: object) -> str:
        return _write_rotated_keys(settings)

    # Opening the database first ensures that no key is rotated when the audit log cannot record it.
    with recorded_run(Task.KEY_ROTATION):
        return run_with_engine(settings, rotate, lambda _: CommandEvent("signing_key", "rotated"))


def make_rotated_keys(settings: Settings) -> str:
    """Return the existing signing keys with a new one, and change nothing. Raises SettingsError."""

    async def rotate(_: object) -> str:
        return rotate_bundle(settings.auth.signing_algorithm, settings.signing_keys())

    return run_with_engine(settings, rotate, lambda _: CommandEvent("signing_key", "printed"))


def _write_rotated_keys(settings: Settings) -> str:
    """Raises SettingsError."""
    check_rotation(settings)
    bundle = rotate_bundle(settings.auth.signing_algorithm, settings.signing_keys())
    delay = f"{find_activation_delay(settings).total_seconds():.0f} seconds"
    path = settings.auth.signing_key_file
    if path is not None:
        _replace_private(path, bundle)
        return f"A new signing key is in {path}. Running gateways sign with it after {delay}."
    _write_env_file({_SIGNING_KEY: bundle})
    return f"A new signing key is in {env_file()}. Running gateways sign with it after {delay}."


def format_signing_key(bundle: str) -> str:
    """Return the .env line for the signing keys, which are several lines of text."""
    text = bundle.strip().replace("\\n", "\n")  # a variable of a platform may contain either
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{_SIGNING_KEY}="{escaped}"'


def _replace_private(path: Path, text: str) -> None:
    """Replace the file, or the target of a link, atomically. Only its owner can read it (0600)."""
    with replace_private_file(path.resolve()) as (_, file):
        file.write(text)
