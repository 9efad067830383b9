"""`GET /v1/audit`: the record of access, newest first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field

from api.deps import AuditLog, Caller
from auth.principal import Scope
from monitoring.audit.events import Entry
from monitoring.audit.store import Filter

router = APIRouter(tags=["monitoring"], dependencies=[Depends(Caller(Scope.AUDIT_READ))])

_MOST = 500


class AuditEntry(BaseModel):
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
    # Anything: an entry that somebody changed is shown as it is.
    detail: Any
    count: int = Field(description="how many equal acts this entry stands for")
    previous: str
    hash: str

    @classmethod
    def of(cls, entry: Entry) -> AuditEntry:
        return cls(**entry.document())


class AuditPage(BaseModel):
    entries: list[AuditEntry]
    next: str | None = Field(description="the `cursor` of the next, older page; null on the last one")


def _no_number(value: object) -> object:
    if isinstance(value, str) and value[4:5] != "-":
        raise ValueError("must be a date and a time, as in 2026-11-23T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be between the years 1 and 9999 in UTC") from None


# A number would be taken for seconds since 1970.
Moment = Annotated[AwareDatetime, BeforeValidator(_no_number), AfterValidator(_in_utc)]


class AuditQuery(BaseModel):
    """Which entries, and which page of them."""

    event: str | None = None
    outcome: str | None = None
    actor: str | None = None
    since: Moment | None = Field(None, description="with its offset; this moment counts in")
    until: Moment | None = Field(None, description="with its offset; this moment does not count")
    limit: int = Field(100, ge=1, le=_MOST)
    cursor: str | None = Field(None, pattern=r"^[1-9][0-9]{0,17}$", description="`next` of the page before")


@router.get("/v1/audit")
async def audit(audit_log: AuditLog, asked: Annotated[AuditQuery, Query()]) -> AuditPage:
    """Every log-in, refusal and act of administration, in the order of a chain of hashes."""
    wanted = Filter(asked.event, asked.outcome, asked.actor, asked.since, asked.until)
    before = int(asked.cursor) if asked.cursor else None
    found = await audit_log.newest(wanted, asked.limit + 1, before)
    page = found[: asked.limit]
    following = str(page[-1].seq) if len(found) > asked.limit else None
    return AuditPage(entries=[AuditEntry.of(entry) for entry in page], next=following)
