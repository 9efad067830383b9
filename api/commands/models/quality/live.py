"""The database, for commands that read how good the models are on live traffic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from api.commands.database import migrate_database
from api.settings import Settings
from storage.engine import open_blocking_engine

_WAIT_S = 60  # beside a gateway that writes


@contextmanager
def open_quality_engine(settings: Settings) -> Iterator[Engine]:
    """Migrate the database, and open it until the context ends. Raises DatabaseUnavailable, DatabaseMissing."""
    migrate_database(settings)
    engine = open_blocking_engine(settings.database_url.get_secret_value(), _WAIT_S)
    try:
        yield engine
    finally:
        engine.dispose()
