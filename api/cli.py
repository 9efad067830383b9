"""The `atalaya` command. Exit status 0 done, 1 failed, 2 wrong usage; an error is one line on standard error."""

from __future__ import annotations

import sys

import typer

from api.commands import audit, client, clients, demo, keras, keys, ledger, local, secrets, serve, users
from api.commands.output import FORESEEN, fail

app = typer.Typer(
    name="atalaya",
    help="A secured prediction gateway for aerial images.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(users.app, name="users")
app.add_typer(clients.app, name="clients")
app.add_typer(keys.app, name="keys")
app.add_typer(secrets.app, name="secrets")
app.add_typer(audit.app, name="audit")
app.add_typer(ledger.app, name="ledger")
app.command()(serve.serve)
app.command()(demo.demo)
app.command()(users.token)
app.command()(client.classify)
app.command()(local.predict)
app.command()(local.evaluate)
app.command()(keras.train)
app.command()(keras.export)


def main() -> None:
    """Run one command and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    try:
        status = app(arguments, standalone_mode=False)
    except typer.TyperException as error:
        return _wrong_usage(error)
    except FORESEEN as error:
        return fail(error)
    except typer.Abort:
        return 130
    return status if isinstance(status, int) else 0


def _wrong_usage(error: typer.TyperException) -> int:
    message = error.format_message()
    if message.startswith("Usage:"):  # no command was given: the help is the answer
        print(message, file=sys.stderr)
        return error.exit_code
    return fail(message, error.exit_code)
