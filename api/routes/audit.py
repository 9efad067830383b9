"""`GET /v1/audit`: the audit log, newest entry first."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from api.deps import AuditLog, Caller
from api.schemas.base import ResponseBody
from api.schemas.fields import Timestamp
from auth.principal import Scope
from monitoring.audit.events import AuditEntry
from monitoring.audit.store import AuditFilter

router = APIRouter(tags=["monitoring"], dependencies=[Depends(Caller(Scope.AUDIT_READ))])

_MAX_LIMIT = 500


class AuditEntryResponse(ResponseBody):
    """`hash` is SHA-256 over the other fields, and `previous` the hash of the entry before."""

    seq: int
    id: str = Field(description="UUIDv7")
    at: str = Field(description="UTC, to the microsecond")
    event: str
    outcome: str
    actor: str = Field(description="subject, or cli: and the operating system's user; empty if unknown")
    target: str = Field(description="a kind, a colon and an id")
    address: str
    request_id: str
    # Any type, because an entry that was altered in the database is returned as it is.
    detail: Any
    count: int = Field(description="how many equal events this entry represents")
    previous: str
    hash: str

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditEntryResponse:
        return cls(**entry.to_dict())


class AuditPageResponse(ResponseBody):
    entries: list[AuditEntryResponse]
    next: str | None = Field(description="the `cursor` of the next, older page; null on the last one")


class AuditQuery(BaseModel):
    """Selects entries, and a page of them."""

    event: str | None = None
    outcome: str | None = None
    actor: str | None = None
    since: Timestamp | None = Field(None, description="with its offset; inclusive")
    until: Timestamp | None = Field(None, description="with its offset; exclusive")
    limit: int = Field(100, ge=1, le=_MAX_LIMIT)
    cursor: str | None = Field(None, pattern=r"^[1-9][0-9]{0,17}$", description="`next` of the previous page")


@router.get("/v1/audit")
async def audit(audit_log: AuditLog, query: Annotated[AuditQuery, Query()]) -> AuditPageResponse:
    """Every login, rejected request and administrative action, in the order of the hash chain."""
    selected = AuditFilter(query.event, query.outcome, query.actor, query.since, query.until)
    before = int(query.cursor) if query.cursor else None
    entries = await audit_log.list_newest(selected, query.limit + 1, before)
    page = entries[: query.limit]
    next_cursor = str(page[-1].seq) if len(entries) > query.limit else None
    return AuditPageResponse(entries=[AuditEntryResponse.of(entry) for entry in page], next=next_cursor)
