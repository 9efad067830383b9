"""`atalaya db`: the database itself."""

from __future__ import annotations

import typer

from api.commands.database import describe_database, run_with_engine
from api.commands.output import JsonFlag, print_json
from api.settings import load_settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Without a callback, Typer would make the only subcommand the command itself."""


@app.command("init")
def init(as_json: JsonFlag = False) -> None:
    """Create the database, or update its tables; existing data stays."""
    settings = load_settings()
    run_with_engine(settings, _do_nothing, create=True)
    name = describe_database(settings.database_url.get_secret_value())
    if as_json:
        print_json({"database": name})
    else:
        typer.echo(f"The database {name} is ready. The first start of the gateway adds the user admin.")


async def _do_nothing(_: object) -> None:
    """Does nothing: `run_with_engine` has applied the migrations."""
