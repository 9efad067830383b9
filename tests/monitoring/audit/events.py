"""Audit events and entries for the tests of this folder."""

from __future__ import annotations

from typing import Any

from monitoring.audit.events import AuditEntry, AuditEvent, new_event
from monitoring.audit.store import AuditFilter, AuditStore


def build_login(actor: str = "ana", **more: Any) -> AuditEvent:
    return new_event("token", "issued", actor=actor, address="127.0.0.1", detail={"grant": "password"}, **more)


async def fill_log(store: AuditStore, count: int = 6) -> list[AuditEntry]:
    """Append `count` logins, and return all entries."""
    await store.append([build_login(f"user-{index}", request_id=f"request-{index}") for index in range(count)])
    return await read_all(store)


async def read_all(store: AuditStore) -> list[AuditEntry]:
    return [entry async for entry in store.iterate(AuditFilter())]
