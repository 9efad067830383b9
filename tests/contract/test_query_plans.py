"""No request reads a whole table: the plans of all queries, on tables with many rows, use indexes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Column, Connection, Double, Integer, String, Table, cast, event, insert, literal, select, text
from sqlalchemy.engine import Engine
from starlette.testclient import TestClient

from api.app import create_app
from api.services.measuring.quality import QualityService
from api.settings import Settings
from auth.login.upkeep import remove_expired
from auth.principal import Role
from auth.quotas.tallies import ADD_BY_PREFIX, ADD_WITHOUT_LIMITS, SET_TOTALS
from auth.tables import metadata as auth_tables
from auth.tokens.jws import generate_signing_key
from monitoring.audit.tables import metadata as audit_tables
from monitoring.canary.store import PairedLabels, TrialNames, TrialStore
from monitoring.canary.tables import metadata as canary_tables
from monitoring.chains.signing import new_private_key
from monitoring.ledger.tables import metadata as ledger_tables
from monitoring.quality.reader import QualityReader
from storage.engine import open_blocking_engine, open_engine
from storage.transactions import WRITING
from tests.support.gateway import PASSWORD, create_database
from tests.support.paths import FOREST
from tests.support.polling import wait_until

ROWS = 20_000
UNKNOWN = "ffffffff-bc9a-7019-bf0d-15032078e849"
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
# These have only one row, or one for each process, key, candidate or unfinished erasure.
SMALL = {"change_counter", "upkeep", "audit_head", "ledger_heads", "ledger_stumps", "ledger_checkpoints"}
SMALL |= {"prediction_sum_ends", "canary_trials", "canary_counts", "pending_erasures"}
TABLES = [
    table
    for metadata in (auth_tables, audit_tables, ledger_tables, canary_tables)
    for table in metadata.sorted_tables
    if table.name not in SMALL
]
LARGE = {table.name for table in TABLES}
VALUES = {
    "role": "client",
    "scopes": "predict",
    "addresses": "",
    "month": "2026-01",
    "at": "2020-01-01T00:00:00.000000Z",
}


def fill(connection: Connection, table: Table) -> None:
    """Insert ROWS rows with different keys, which all expire in the future."""
    numbers = select(literal(1).label("number")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.number + 1).where(numbers.c.number < ROWS))

    def make_value(column: Column[Any]) -> Any:
        if isinstance(column.type, String):
            digits = cast(numbers.c.number + 10_000_000, String)
            prefix = "00000000-0000-0000-0000-0000" if (column.type.length or 36) >= 36 else ""
            return literal(VALUES.get(column.name)) if column.name in VALUES else literal(prefix).concat(digits)
        is_number = isinstance(column.type, Integer | Double)
        return -numbers.c.number if is_number else literal(FUTURE, column.type)

    columns = [column for column in table.columns if not column.nullable]
    connection.execute(insert(table).from_select(columns, select(*map(make_value, columns))))


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Settings of a gateway whose database, SQLite or PostgreSQL, has many rows."""
    create_database(database_url, root=Role.ADMIN, ana=Role.CLIENT)
    engine = open_blocking_engine(database_url, 60).execution_options(**WRITING)
    with engine.begin() as connection:
        for table in TABLES:
            fill(connection, table)
        connection.execute(text("ANALYZE"))
    engine.dispose()
    return Settings(
        database_url=database_url,
        allowed_hosts=("testserver",),
        auth={"signing_key": generate_signing_key("ES256")},
        model={"url": "stub://", "workers": 1},
        ledger={"signing_key": new_private_key(), "spool_folder": tmp_path / "spool"},
    )


# Statements that the driver executes, which `recorded_statements` does not record, and parameters for all of them.
# The ledger's are left out, because they insert rows and change the small table of heads.
DRIVER_STATEMENTS = (*ADD_BY_PREFIX.values(), ADD_WITHOUT_LIMITS, SET_TOTALS)
DRIVER_PARAMETERS = {
    "of": "user:ana",
    "in": "2026-01",
    "id": "ana",
    **dict.fromkeys(("requests", "pixels", "more_requests", "more_pixels"), 1),
}


@contextmanager
def recorded_statements() -> Iterator[dict[str, Any]]:
    """The text of every statement that is executed in this process, with the parameters of its first execution."""
    statements: dict[str, Any] = {}

    def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement.split(maxsplit=1)[0] in ("SELECT", "UPDATE", "DELETE", "WITH"):
            statements.setdefault(statement, parameters[0] if many else parameters)

    event.listen(Engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", record)


AUDIT_FILTERS = (
    "",
    "event=token",
    "outcome=refused",
    "actor=ana",
    "event=token&outcome=refused",
    "since=2026-01-01T00:00:00Z",
    "until=2019-01-01T00:00:00Z",
    "cursor=5",
)


class Caller:
    """Sends requests that must succeed."""

    def __init__(self, client: TestClient, user: str) -> None:
        self._client = client
        self.headers: dict[str, str] = {}
        form = {"grant_type": "password", "username": user, "password": PASSWORD}
        self.tokens = self.send("POST", "/auth/token", data=form)
        self.headers = {"Authorization": f"Bearer {self.tokens['access_token']}"}

    def send(self, method: str, path: str, **options: Any) -> Any:
        headers = {**self.headers, **options.pop("headers", {})}
        response = self._client.request(method, path, headers=headers, **options)
        assert response.is_success, response.text
        return response.json() if response.content else None


def send_every_kind_of_request(client: TestClient) -> None:
    """Send requests to all routes that query the database, as a client and as an administrator."""
    client.post("/auth/token", data={"grant_type": "password", "username": "ana", "password": "wrong"})
    ana, root = Caller(client, "ana"), Caller(client, "root")
    refresh = {"grant_type": "refresh_token", "refresh_token": ana.tokens["refresh_token"]}
    refreshed = ana.send("POST", "/auth/token", data=refresh)
    ana.send("POST", "/auth/introspect", data={"token": refreshed["refresh_token"]})
    image, jpeg = FOREST.read_bytes(), {"Content-Type": "image/jpeg"}
    predicted = ana.send("POST", "/v1/predictions", content=image, headers=jpeg)
    prediction = f"/v1/predictions/{predicted['id']}"
    wait_until(lambda: client.get(prediction, headers=ana.headers).is_success)  # a busy machine may have spooled it
    key = ana.send("POST", "/v1/keys", json={"name": "field", "scopes": ["predict"]})
    assert client.post("/v1/predictions", content=image, headers={**jpeg, "X-API-Key": key["key"]}).is_success
    for query in ("limit=200", f"cursor={predicted['id']}"):
        ana.send("GET", f"/v1/predictions?{query}")
    for path in (prediction, "/v1/keys", f"/v1/keys?cursor={key['id']}", "/v1/usage"):
        ana.send("GET", path)
    ana.send("POST", f"{prediction}/label", json={"label": "forest"})
    for query in ("", "?since=2026-01-01T00:00:00Z"):
        root.send("GET", f"/v1/models/stub/quality{query}")
    root_labels = f"/v1/predictions/{UNKNOWN}/label"
    assert client.post(root_labels, json={"label": "forest"}, headers=root.headers).status_code == 404
    ana.send("POST", f"/v1/keys/{key['id']}/rotate")
    ana.send("DELETE", f"/v1/keys/{key['id']}?cascade=true")
    user = ana.send("GET", "/v1/me")["subject"]
    for path in ("users", "users?cursor=m", f"users/{user}", f"keys?user={user}", f"usage?user={user}"):
        root.send("GET", f"/v1/{path}")
    for query in AUDIT_FILTERS:
        root.send("GET", f"/v1/audit?{query}")
    ana.send("POST", "/auth/revoke", data={"token": refreshed["refresh_token"]})
    root.send("PATCH", f"/v1/users/{user}", json={"role": "operator"})


# These contain few rows of a large table, so reading all of them is cheap.
PARTIAL_INDEXES = re.compile("ix_(users|api_keys)_quota")


def find_table_scans(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """The lines of the plan that read a large table, or a whole index of it, row by row."""
    return [line for line in _find_scans(connection, statement, parameters) if not PARTIAL_INDEXES.search(line)]


def _find_scans(connection: Connection, statement: str, parameters: Any) -> list[str]:
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        return [row[-1] for row in rows if (scan := re.match(r"SCAN (\w+)", row[-1])) and scan[1] in LARGE]
    lines = [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]
    scans = []
    for line, properties in zip(lines, [*lines[1:], ""], strict=True):
        scan = re.search(r"(Seq|Index|Index Only) Scan.* on (\w+)", line)
        if scan and scan[2] in LARGE and "Index Cond" not in properties:
            scans.append(line)
    return scans


def reads_one_page(statement: str) -> bool:
    """Whether the rows are read in the order of an index until the page is full, without skipping any.

    The audit log is ordered by time to within seconds, so that all rows in the range of a filter by time match.
    """
    conditions = statement.partition("WHERE")[2].partition("ORDER BY")[0]
    return "LIMIT" in statement and (not conditions or "audit_events.at" in conditions)


def assert_no_scans(settings: Settings, statements: dict[str, Any]) -> None:
    engine = open_blocking_engine(settings.database_url.get_secret_value(), 60)
    with engine.connect() as connection:
        scans = {
            statement: lines
            for statement, parameters in statements.items()
            if not reads_one_page(statement) and (lines := find_table_scans(connection, statement, parameters))
        }
    engine.dispose()
    assert scans == {}


def test_no_request_reads_a_whole_table(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tables with many rows every query of every route finds its rows by an index, or reads one page in order."""
    # On a slow machine, the metrics of quality are measured meanwhile. They read the sums of all versions and hours.
    monkeypatch.setattr(QualityService, "refresh", AsyncMock())
    app = create_app(settings, registry=CollectorRegistry())
    with recorded_statements() as statements, TestClient(app) as client:
        send_every_kind_of_request(client)
    assert len(statements) > 30
    dialect = open_blocking_engine(settings.database_url.get_secret_value()).dialect
    statements |= {statement.compile(dialect): DRIVER_PARAMETERS for statement in DRIVER_STATEMENTS}
    assert_no_scans(settings, statements)


async def test_work_in_the_background_reads_no_whole_table(settings: Settings) -> None:
    """The upkeep finds expired rows, a trial its pairs of labels, and the quality reader new labels by indexes."""
    url = settings.database_url.get_secret_value()
    engine, blocking = open_engine(url), open_blocking_engine(url, 60)
    with recorded_statements() as statements:
        removed = await remove_expired(engine, datetime.now(UTC))
        assert {each.split()[2] for each in statements if each.startswith("DELETE FROM ")} == removed.keys()
        await run_trial(TrialStore(engine))
        QualityReader(blocking).find_label_ends()
    await engine.dispose()
    blocking.dispose()
    assert_no_scans(settings, statements)


async def run_trial(store: TrialStore) -> None:
    """Do everything that a trial does, from its beginning to its verdict."""
    names, pair = TrialNames("t", "tiny", "2.0", "1.0"), PairedLabels("p", "t", "forest", "river")
    await store.begin(names)
    await store.add(names.id, {"error": (0, 1, 0)}, [pair], lambda _: None)
    assert await store.take_pair("p") == pair
    await store.add(names.id, {}, [], lambda _: "promote")
    await store.take_over(names.model)
    await store.finish(names.id)
