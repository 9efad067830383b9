"""Reads the ledger's database for commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from api.commands.database import check_database_exists, run_with_engine
from api.errors import CommandFailed
from api.settings import Settings
from auth.accounts.store import UserStore
from auth.errors import UserNotFound
from monitoring.ledger.exports.selection import is_recorded
from monitoring.ledger.tables import ledger_payloads
from monitoring.ledger.transactions import ledger_errors
from storage.engine import open_blocking_engine

_STATEMENT_TIMEOUT_S = 3600  # streaming a large ledger takes long


@contextmanager
def open_snapshot(settings: Settings) -> Iterator[Connection]:
    """Open a snapshot of the database, to stream it while others write. Raises LedgerUnavailable, DatabaseMissing.

    An OSError of the block is raised as it is: it comes from the output, because SQLAlchemy wraps those of the drivers.
    """
    output_error: OSError | None = None
    url = settings.database_url.get_secret_value()
    check_database_exists(url)
    engine = open_blocking_engine(url, _STATEMENT_TIMEOUT_S)
    try:
        # SQLite's transactions always see one snapshot.
        level = "REPEATABLE READ" if engine.dialect.name == "postgresql" else "SERIALIZABLE"
        with ledger_errors(engine.url), engine.execution_options(isolation_level=level).begin() as connection:
            try:
                yield connection
            except OSError as error:
                output_error = error
    finally:
        engine.dispose()
    if output_error is not None:
        raise output_error


def find_subject(settings: Settings, name: str) -> str:
    """Return the subject of the user with that name or id, or else the name itself if it is a subject in the ledger.

    Raises CommandFailed, LedgerUnavailable, DatabaseMissing.
    """
    user_id = run_with_engine(settings, lambda engine: _find_user_id(UserStore(engine), name))
    if user_id is not None:
        return user_id
    with open_snapshot(settings) as connection:
        if not is_recorded(connection, ledger_payloads.c.principal, name):
            raise CommandFailed(
                f"There is no user {name}, and the ledger has no predictions of a subject with that name. "
                "`atalaya users list` prints the names."
            )
    return name


def check_model_recorded(settings: Settings, model: str) -> None:
    """Raises CommandFailed if the ledger has no prediction of the model, LedgerUnavailable, DatabaseMissing."""
    with open_snapshot(settings) as connection:
        if not is_recorded(connection, ledger_payloads.c.model, model):
            raise CommandFailed(
                f"The ledger has no predictions of a model {model}. Write NAME-vVERSION, such as efficientnetb0-v1.1."
            )


async def _find_user_id(store: UserStore, text: str) -> str | None:
    user_and_hash = await store.find(text)
    if user_and_hash is not None:
        return user_and_hash[0].id
    try:
        return (await store.get(text)).id
    except UserNotFound:
        return None
