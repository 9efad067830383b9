"""Removes credentials from texts and data structures before they leave the process, and escapes control characters."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

REDACTED = "[redacted]"

_MAX_DEPTH = 10
_SENSITIVE_NAMES = (
    r"passw(?:or)?d|passphrase|pwd|secret|token|jwt|authorization|cookie|credential"
    r"|(?:api|private|signing|access|data)[-_]?key|__key"
)
# Settings whose values contain credentials. Messages begin with their names and a colon.
_SENSITIVE_SETTINGS = r"(?:database|redis|send)_url|sentry_dsn|(?:otlp|send)_headers"
# Settings with such a name whose values are no credentials: messages about them must stay readable. This package cannot
# import api, so tests/contract/test_credential_prefixes.py compares this list with the settings.
_PLAIN_SETTINGS = frozenset(
    {
        *("secrets__url", "secrets__refresh_seconds", "secrets__vault_auth", "secrets__vault_role"),
        *("secrets__vault_credential_file", "auth__signing_key_file", "auth__access_token_seconds"),
        *("auth__password_grant", "calendar__key_rotation_days", "limits__token", "limits__password"),
    }
)
_NO_PLAIN_SETTING = "".join(rf"(?<!\b{name})" for name in sorted(_PLAIN_SETTINGS))
_SECRET_NAME = re.compile(f"{_SENSITIVE_NAMES}|{_SENSITIVE_SETTINGS}")
_HEADER_NAME = re.compile(r"[\w-]{1,64}")


# How the gateway's opaque credentials begin: API keys, refresh tokens and clients' secrets. This package cannot import
# auth, so tests/contract/test_credential_prefixes.py compares this list with the prefixes there.
TOKEN_PREFIXES = ("atl_", "atr_", "ats_")


_PORT = re.compile(r"\d{1,5}(?:[/?#]|$)")


def _redact_jwt(run: re.Match[str]) -> str:
    """Redact a run of characters with a JWT: its header `{"…` is `eyJ…` in base64url, and is followed by a dot."""
    return REDACTED if "." in run[0].partition("eyJ")[2] else run[0]


def _redact_basic(match: re.Match[str]) -> str:
    """Redact the user and password of basic authentication: once decoded from base64, they are separated by a colon."""
    encoded = match[2].replace("-", "+").replace("_", "/")
    decoded = base64.b64decode(encoded + "A" * (-len(encoded) % 4))
    return match[1] + REDACTED if b":" in decoded else match[0]


def _redact_urls(run: re.Match[str]) -> str:
    """Redact the passwords in a run of characters with URLs. Passwords may contain slashes and at signs."""
    first, *rests = run[0].split("://")
    return "://".join((first, *map(_redact_password, rests)))


def _redact_password(address: str) -> str:
    """Redact the password of USER:PASSWORD@HOST, but nothing after HOST:PORT."""
    user, _, rest = address.partition(":")
    password, _, host = rest.rpartition("@")
    if not password or "/" in user or _PORT.match(rest):
        return address
    return f"{user}:{REDACTED}@{host}"


# A marker in lower case without which the pattern cannot match, the pattern, and its replacement. Most texts contain no
# marker, which is fast to check. Every pattern takes linear time, since texts may be hostile.
_RULES: tuple[tuple[str, re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (
        "-----begin",
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        REDACTED,
    ),
    ("://", re.compile(r"[^\s\"<>|]+"), _redact_urls),
    ("eyj", re.compile(r"[\w.-]+"), _redact_jwt),
    *((prefix, re.compile(rf"{prefix}[\w-]+"), REDACTED) for prefix in TOKEN_PREFIXES),
    ("bearer", re.compile(r"\b(bearer(?:\s|%20)+)[^\s\"',;]+", re.IGNORECASE), rf"\1{REDACTED}"),
    ("basic", re.compile(r"\b(basic(?:\s|%20)+)([A-Za-z0-9+/_-]{4,})=*", re.IGNORECASE), _redact_basic),
    ("$argon2", re.compile(r"\$argon2[^\s\"';]+"), REDACTED),
)
# A string in quotation marks, as in JSON and Python.
_STRING = r"[bru]{0,2}(?:\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+')"


def _build_brackets(depth: int) -> str:
    """Build a pattern for an object, list or tuple on one line, with at most `depth` levels of others in it."""
    inner = rf"|{_build_brackets(depth - 1)}" if depth else ""
    strings = r"\"(?:[^\"\\\n]|\\[^\n])*+\"|'(?:[^'\\\n]|\\[^\n])*+'"
    return rf"[\[({{](?:[^\[\](){{}}\"'\n]|{strings}{inner})*+[\])}}]"


# What may follow a string or an object that is the whole value. Otherwise the value ends at the next separator, also
# where a rule above has redacted only its beginning.
_END = r"(?=[\]})>\"'.\\]*(?:[\s,;&]|\Z))"
# Patterns for values with the name of a credential.
_VALUES = (
    # The headers of a setting: all of them, with commas and spaces.
    re.compile(r"((?:otlp|send)_headers *= *+)[^\n]+", re.IGNORECASE),
    re.compile(
        rf"((?:(?:{_SENSITIVE_NAMES})[\w-]{{0,32}}{_NO_PLAIN_SETTING}\\?[\"']?\s{{0,3}}[=:]"
        rf"|(?:{_SENSITIVE_SETTINGS})(?:\\?[\"']\s{{0,3}}[=:]|\s{{0,3}}=))\s{{0,3}})"
        r"(?:(?:bearer|basic)\s)?"
        rf"(?:(?:{_STRING}|{_build_brackets(3)})(?:{_END}|[^\s,;&]+)|[\[({{][^\n]*|[^\s,;&]+)",
        re.IGNORECASE | re.DOTALL,
    ),
    # A tuple or list of a header's name and value.
    re.compile(
        rf"([\[(]b?([\"'])[\w-]{{0,32}}(?:{_SENSITIVE_NAMES})[\w-]{{0,32}}\2,\s{{0,3}}){_STRING}(?=\s{{0,3}}[\])])",
        re.IGNORECASE | re.DOTALL,
    ),
)


_PLAIN_TYPES = (int, bool, type(None))
# No rule applies to a text that contains none of these.
_MARKERS = re.compile(rf"{'|'.join(re.escape(marker) for marker, *_ in _RULES)}|[=:\"']", re.IGNORECASE)


@lru_cache(maxsize=1024)
def is_secret_name(key: str) -> bool:
    """Whether values with this name are always masked, such as `password`, `X-API-Key` or `jwt`."""
    name = key.lower()
    return name not in _PLAIN_SETTINGS and _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """Replace credentials by "[redacted]"; redacting the result again changes nothing.

    Recognises JSON Web Tokens, the gateway's opaque credentials (TOKEN_PREFIXES), `Bearer x`, `Basic x`, `password=x`
    and similar pairs (also in JSON and Python objects, and with an object as the value), pairs of a header's name and
    value, passwords in URLs, Argon2 hashes and private keys in PEM.
    """
    if _MARKERS.search(text) is None:
        return text
    lowered = text.lower()
    for marker, pattern, replacement in _RULES:
        if marker in lowered:
            text = pattern.sub(replacement, text)
    if _SECRET_NAME.search(lowered):
        for pattern in _VALUES:
            text = pattern.sub(rf"\1{REDACTED}", text)
    return text


def to_printable(text: str) -> str:
    """Escape control characters, which a terminal would interpret."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def redact_tree(value: object, depth: int = 0) -> object:
    """Return a copy made of JSON's types only, redacted at every depth by key and by pattern.

    A list of a credential's name and a value is a header, of which the value is redacted.
    Other objects are replaced by their repr, and so are containers below the tenth level.
    """
    match value:
        case str():
            return redact(value)
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case Mapping() if depth < _MAX_DEPTH:
            return dict(_redact_entry(str(key), entry, depth) for key, entry in value.items())
        case list() | tuple() | set() | frozenset() if depth < _MAX_DEPTH:
            return _redact_entries(value, depth)
    return redact(repr(value))


def redact_event(event: Mapping[str, object]) -> Mapping[str, object]:
    """Return what `redact_tree` returns for the fields of a log line.

    Most lines have only plain values and no marker. One search detects them, and they are returned unchanged.
    """
    texts: list[str] = []
    for key, value in event.items():
        kind = type(value)
        if kind is str:
            texts.append(value)  # type: ignore[arg-type]  # checked by its type
        elif kind is float:
            if not math.isfinite(value):  # type: ignore[arg-type]
                break
        elif kind not in _PLAIN_TYPES:
            break
        if _redact_key(key) != (key, False):
            break
    else:
        if _MARKERS.search("\0".join(texts)) is None:
            return event
    redacted = redact_tree(event)
    assert isinstance(redacted, dict)  # noqa: S101  a mapping becomes a dictionary
    return redacted


def _redact_entries(entries: Collection[object], depth: int) -> list[object]:
    match entries:
        case [str() | bytes() as name, _] if _is_header_name(name):
            return [redact_tree(name), REDACTED]
    return [redact_tree(entry, depth + 1) for entry in entries]


def _is_header_name(text: str | bytes) -> bool:
    """Whether the text is a name of credentials, and not a sentence about them."""
    name = text.decode("latin-1") if isinstance(text, bytes) else text
    return _HEADER_NAME.fullmatch(name) is not None and is_secret_name(name)


def _redact_entry(key: str, value: object, depth: int) -> tuple[str, object]:
    shown, is_secret = _redact_key(key)
    return shown, REDACTED if is_secret else redact_tree(value, depth + 1)


@lru_cache(maxsize=1024)
def _redact_key(key: str) -> tuple[str, bool]:
    """Return the key as it may be shown, and whether its values are always masked."""
    return redact(key), is_secret_name(key)
