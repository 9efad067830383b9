"""Which URLs the settings accept."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_redis_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        target = parts.path if parts.scheme == "unix" else parts.port != 0 and parts.hostname
    except ValueError:
        return False
    database = parts.path.strip("/") if parts.scheme != "unix" else ""
    return parts.scheme in ("redis", "rediss", "unix") and bool(target) and (not database or database.isdecimal())
