"""Execute statements directly through the driver, for the few transactions that every prediction waits for.

SQLAlchemy compiles each statement once, but does not execute it. Right after an inference, when the model's weights
fill the processor's caches, SQLAlchemy would spend twenty times as long on a short statement as SQLite does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.expression import ClauseElement

from storage.transactions import get_begin_statement

Parameters = Mapping[str, Any]


class DriverStatement:
    """A statement with named parameters, whose values are passed to the driver without conversion.

    If the statement differs between databases, pass a function that builds it for a dialect.
    """

    def __init__(self, statement: ClauseElement | Callable[[Dialect], ClauseElement]) -> None:
        self._statement = statement
        self._compiled: dict[str, str] = {}

    def compile(self, dialect: Dialect) -> str:
        """Return the SQL text, with placeholders that the driver fills from a mapping."""
        text = self._compiled.get(dialect.name)
        if text is None:
            style = "named" if dialect.name == "sqlite" else dialect.paramstyle
            dialect_type: Any = type(dialect)
            statement = self._statement if isinstance(self._statement, ClauseElement) else self._statement(dialect)
            text = str(statement.compile(dialect=dialect_type(paramstyle=style)))
            self._compiled[dialect.name] = text
        return text


class DriverResult:
    """The rows of an executed statement. PostgreSQL may not have sent them yet."""

    __slots__ = ("_connection", "_cursor")

    def __init__(self, connection: DriverConnection, cursor: Any) -> None:
        self._connection = connection
        self._cursor = cursor

    def fetch(self) -> Sequence[Any]:
        """Return all rows. Raises DBAPIError."""
        try:
            rows: Sequence[Any] = self._cursor.fetchall()
        except self._connection.driver_error as error:
            raise self._connection.translate(error) from error
        return rows


class DriverConnection:
    """The driver's side of an open connection. Its methods raise SQLAlchemy's errors.

    Inside `transaction`, statements are sent to PostgreSQL without waiting for earlier results (pipeline mode). So an
    error may surface only when a result is fetched, or at the end of the transaction.
    """

    def __init__(self, connection: Connection) -> None:
        self.dialect = connection.dialect
        self.driver_error: type[Exception] = self.dialect.loaded_dbapi.Error
        self._driver: Any = connection.connection.dbapi_connection
        self._begin = get_begin_statement(connection)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Open a transaction through the driver; SQLAlchemy's connection must not have one."""
        try:
            with self._pipeline():
                self._driver.cursor().execute(self._begin)
                yield
                self._driver.commit()
        except BaseException as error:
            with suppress(self.driver_error):  # the connection may be lost
                self._driver.rollback()
            if isinstance(error, self.driver_error):
                raise self.translate(error) from error
            raise

    def execute(self, statement: DriverStatement, parameters: Parameters) -> DriverResult:
        cursor = self._driver.cursor()
        try:
            cursor.execute(statement.compile(self.dialect), parameters)
        except self.driver_error as error:
            raise self.translate(error) from error
        return DriverResult(self, cursor)

    def execute_many(self, statement: DriverStatement, rows: Sequence[Parameters]) -> None:
        try:
            self._driver.cursor().executemany(statement.compile(self.dialect), rows)
        except self.driver_error as error:
            raise self.translate(error) from error

    def translate(self, error: Exception) -> BaseException:
        """Return SQLAlchemy's equivalent of an error of the driver."""
        base = self.driver_error
        return DBAPIError.instance(None, None, error, base, hide_parameters=True, dialect=self.dialect)

    def _pipeline(self) -> AbstractContextManager[object]:
        if self.dialect.name == "sqlite":
            return nullcontext()
        pipeline: AbstractContextManager[object] = self._driver.pipeline()
        return pipeline
