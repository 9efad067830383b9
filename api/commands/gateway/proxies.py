"""`atalaya proxies`: the published networks of services in front of the gateway."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from api.commands.output import JsonFlag, format_count, print_json
from api.errors import CommandFailed
from api.http.addresses.published import ProxyService, list_file, parse_published
from api.settings.home import published_networks_folder
from storage.private_files import replace_private_file

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Without a callback, Typer would make the only subcommand the command itself."""


@app.command("refresh")
def refresh(
    service: Annotated[ProxyService, typer.Argument(help="The service whose networks the files contain.")],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="Copies of the lists that the service publishes; - for standard input."),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Install a newer list of the networks of a service that LIMITS__TRUSTED_PROXIES can name."""
    try:
        networks = parse_published(service, "\n".join(_read(file) for file in files))
    except ValueError as error:
        raise CommandFailed(f"{', '.join(map(str, files))}: {error}. The list in use has not changed.") from None
    path = list_file(published_networks_folder(), service)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replace_private_file(path) as (_, file):
        file.write("".join(f"{network}\n" for network in networks))
    if as_json:
        print_json({"service": service, "networks": len(networks), "file": str(path)})
    else:
        count = format_count(len(networks), "network")
        typer.echo(f"{path} has {count} of {service}. Restart the gateway to use them.")


def _read(file: Path) -> str:
    """Raises CommandFailed, ValueError."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}.") from None
