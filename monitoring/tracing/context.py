"""The header `traceparent`, and a request's ids (W3C Trace Context, https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
import secrets

from msgspec import Struct

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


class TraceContext(Struct, frozen=True):
    """The ids of a request's span in lower-case hex, and of its parent: "" if the trace begins here."""

    trace_id: str
    span_id: str
    parent_id: str
    sampled: bool


def start_trace() -> TraceContext:
    """Return the context of a sampled request that begins a trace."""
    return TraceContext(secrets.token_hex(16), secrets.token_hex(8), "", sampled=True)


def continue_trace(traceparent: str) -> TraceContext | None:
    """Return the context of a request with this header, or None if the header is invalid."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    # Version 255 is forbidden, and only versions after 0 may have further fields.
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(parent_id, 16):
        return None
    return TraceContext(trace_id, secrets.token_hex(8), parent_id, sampled=bool(int(flags, 16) & _SAMPLED))
