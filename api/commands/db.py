"""`atalaya db`: the database itself."""

from __future__ import annotations

import typer

from api.commands.database import describe_database, run_with_engine
from api.commands.output import JsonFlag, print_json
from api.settings import load_settings
from auth.accounts.store import UserStore

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Without a callback, Typer would make the only subcommand the command itself."""


@app.command("init")
def init(as_json: JsonFlag = False) -> None:
    """Create the database, or update its tables; existing data stays."""
    settings = load_settings()
    users = run_with_engine(settings, lambda engine: UserStore(engine).count(), create=True)
    name = describe_database(settings.database_url.get_secret_value())
    if as_json:
        print_json({"database": name})
    else:
        next_start = "" if users else " The first start of the gateway adds the user admin."
        typer.echo(f"The database {name} is ready.{next_start}")
