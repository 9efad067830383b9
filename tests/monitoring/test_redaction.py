"""Redacting credentials in texts and data structures."""

from __future__ import annotations

import base64
import json
import math
import secrets
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitoring.redaction import REDACTED, is_secret_name, redact, redact_event, redact_tree
from tests.monitoring.jwts import make_jwt


@pytest.mark.parametrize(
    "around",
    ["{}", "token {} refused", "'{}',", "Bearer%20{}&x=1", "[{}]\n", "https://host.example/callback#{}", "a\\n{}"],
)
def test_jwt_is_found_anywhere(around: str) -> None:
    """No part of a JSON Web Token remains, whatever text surrounds it."""
    token = make_jwt()
    cleaned = redact(around.format(token))
    assert REDACTED in cleaned
    assert not any(part in cleaned for part in token.split("."))


def test_unsigned_and_truncated_jwts() -> None:
    """Unsigned and truncated tokens are redacted."""
    header, payload, _ = make_jwt().split(".")
    assert redact(f"{header}.{payload}.") == REDACTED
    assert redact(f"{header}.{payload[:5]}") == REDACTED


@pytest.mark.parametrize(
    "template",
    [
        "atl_7fQ2_{}",
        "Authorization: Bearer {}",
        "authorization: bearer {}",
        "authorization: Basic {}",
        "password={} next",
        "PASSWORD: {}",
        "new_password = '{}'",
        '{{"client_secret": "{}"}}',
        "{{'refresh_token': '{}'}}",
        "X-API-Key: {}",
        "AUTH__SIGNING_KEY={}",
        "AUTH__DATA_KEY={}",
        "SECRETS__URL: token={}",
        "SECRETS__URL=vault+https://ana:{}@vault.example/land",
        "SECRETS__VAULT_CREDENTIAL: {}",
        "SECRETS__URL_TOKEN: {}",
        "MY_SECRETS__URL: {}",
        "IMAGES__KEY: '{}'",
        "SENTRY_DSN=https://{}@sentry.example/1",
        '{{"OTEL_EXPORTER_OTLP_HEADERS": "x-honeycomb={}"}}',
        "postgresql://atalaya:{}@db.internal:5432/atalaya",
        "postgresql://atalaya:pa/ss{}/@db.internal:5432/atalaya",
        "postgresql://atalaya:pa@ss{}@@db.internal/atalaya",
        "postgresql://ana@corp:{}@db.internal/atalaya",
        "from redis://:{}@cache/0,redis://:pa/ss@cache/1",
        "stored hash $argon2id$v=19$m=19456,t=2,p=1${}",
        "key -----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY----- end",
        "PEM cut off: -----BEGIN PRIVATE KEY-----\\n{}",
    ],
)
def test_credential_forms(template: str) -> None:
    """API keys, bearer tokens, private keys, and passwords in pairs, URLs and hashes are redacted."""
    secret = secrets.token_urlsafe(24)
    cleaned = redact(template.format(secret))
    assert secret not in cleaned
    assert REDACTED in cleaned


@pytest.mark.parametrize("password", ["x", "correct horse", "kCGu4mpei_et0WxXNmcR9Uh2AYikIagb", "pässword", "?>~?>~"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_basic_authentication(password: str, encode: Callable[[bytes], bytes]) -> None:
    """The user and password of basic authentication are redacted even with no field name before them."""
    encoded = encode(f"ana:{password}".encode()).decode()
    assert redact(f"got 'Basic {encoded}' from a proxy") == f"got 'Basic {REDACTED}' from a proxy"


def test_password_with_spaces_in_quotes() -> None:
    """A quoted password is redacted up to its closing quote, including spaces and escaped quotes."""
    assert redact(r'login {"password": "correct \"horse\" battery", "name": "ana"}') == (
        'login {"password": [redacted], "name": "ana"}'
    )


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("{'tokens': {'access_token': 'hush'}} end", f"{{'tokens': {REDACTED}}} end"),
        ('{"tokens": {"a": ["}", {"b": "hush"}]}, "name": "ana"}', f'{{"tokens": {REDACTED}, "name": "ana"}}'),
        ('{"cookies":["hush",("hush")],"name":"ana"}', f'{{"cookies":{REDACTED},"name":"ana"}}'),
        ("tokens={{{{{{'a': 'hush'}}}}}}\nend", f"tokens={REDACTED}\nend"),
        ("tokens=[('a', 'hush'\nend", f"tokens={REDACTED}\nend"),
        ("{'password': b'hush hush hush'}", f"{{'password': {REDACTED}}}"),
        ("{'password': Rb\"hush 'hush\"}", f"{{'password': {REDACTED}}}"),
        ('LOGS__SEND_HEADERS={"DD-API-KEY": "hush", "x": "hush"}\nend', f"LOGS__SEND_HEADERS={REDACTED}\nend"),
        ("OTEL_EXPORTER_OTLP_HEADERS=a=Bearer hush,x=hush\nend", f"OTEL_EXPORTER_OTLP_HEADERS={REDACTED}\nend"),
        ("[('x-api-key', 'hush hush'), ('a', 'b')]", f"[('x-api-key', {REDACTED}), ('a', 'b')]"),
        ("[(b'authorization', b'hush')]", f"[(b'authorization', {REDACTED})]"),
        ('[["Cookie", "hush"]]', f'[["Cookie", {REDACTED}]]'),
    ],
)
def test_structured_values(text: str, cleaned: str) -> None:
    """An object, a list, a byte string or a pair is redacted to its end, or to the end of the line if it has none."""
    assert redact(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "POST /v1/predictions answered 200 in 12 ms",
        "The token is not valid. Ask for a new one at /auth/token.",
        "Model efficientnetb0-v1.1 opened; sha256 9f86d081884c7d659a2feaa0c55ad015",
        "https://gateway.example/v1/predictions?top_k=3",
        "https://gateway.example:8443/v1/me and ana@gateway.example",
        "https://login.example:8443/realms/maps|ana@example.org",
        "GET http://gateway.example:8000/images?owner=ana@example.org",
        '{"url":"http://gateway.example:8080/x","who":"ana@example.org"}',
        "https://login.example|user:ana@example.org",
        "https://gateway.example/@ana:maps@latest",
        "Basic authentication is a basic precaution",
        "DATABASE_URL: the file is damaged, or is not an SQLite database.",
        "LOGS__SEND_HEADERS: the JSON object is not valid.",
        "SECRETS__URL: /run/secrets cannot be read: Permission denied",
        '{"AUTH__SIGNING_KEY_FILE": "/run/keys"}',
        "the form has ('token', 'scope', 'state'), not ['token', 3]",
        "{'tokens_used', 'label'} and (password, name)",
    ],
)
def test_plain_text_is_unchanged(text: str) -> None:
    """A text without credentials is unchanged, even one about tokens."""
    assert redact(text) == text


@given(st.text(max_size=300))
@example('{"password": "p"}')
@example("password=atl_abc/def")
@example("password=atl_abc}def")
def test_redaction_is_idempotent(text: str) -> None:
    """Redacting a second time changes nothing."""
    once = redact(text)
    assert redact(once) == once


_FRAGMENTS = (
    *("password", "x-api-key", "OTEL_EXPORTER_OTLP_HEADERS", "=", ":", '"', "'", "b'", "', '", "{", "}", "[", "]", "("),
    *(")", " ", ",", "\\", "\n", "/", "x", "atl_a", "bearer ", REDACTED),
)


@given(st.lists(st.sampled_from(_FRAGMENTS), max_size=14).map("".join))
@example("password='x'y")
@example('{"password": "x"}y')
@example("token={'a': 1}/y")
def test_redaction_of_fragments_is_idempotent(text: str) -> None:
    """Redacting a second time changes nothing in texts that consist of parts of credentials."""
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "unit",
    [
        "eyJ",
        "eyJ.",
        "password=",
        "atl_",
        "://a:",
        "://a:/@",
        "basic ",
        "basic aaaa",
        "bearer ",
        "-----BEGIN ",
        'token="\\',
        'token={"',
        "token=[\n",
        "token={'a': [(",
        'token={\\"',
        "('token', \"",
        "send_headers=\n",
    ],
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    """A megabyte of incomplete credentials takes seconds of processor time; a quadratic pattern would take minutes."""
    started = time.thread_time()
    redact(unit * (1_000_000 // len(unit)))
    assert time.thread_time() - started < 10


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "Password",
        "X-API-Key",
        "authorization",
        "Set-Cookie",
        "refresh_token",
        "signing-key",
        "data_key",
        "jwt",
    ],
)
def test_secret_names(name: str) -> None:
    """Names of credentials are recognised in any case and with dashes or underscores."""
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["event", "request_id", "principal", "route", "label", "keys", "duration_ms"])
def test_other_names(name: str) -> None:
    """Names that logs need are not taken for names of credentials."""
    assert not is_secret_name(name)


def test_tree_at_every_depth() -> None:
    """Values are masked by key and by pattern in nested mappings, lists, tuples, sets, keys and objects' reprs."""
    token = make_jwt()
    tree = {"a": [{"b": ({"password": ["x", "y"]}, token)}], "c": {token}, token: token, "error": ValueError(token)}
    cleaned = redact_tree(tree)
    assert cleaned == {
        "a": [{"b": [{"password": REDACTED}, REDACTED]}],
        "c": [REDACTED],
        REDACTED: REDACTED,
        "error": f"ValueError('{REDACTED}')",
    }


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(("name", "shown"), [("x-api-key", "x-api-key"), (b"Cookie", "b'Cookie'")])
def test_headers_in_a_tree(kind: type[list[object] | tuple[object, ...]], name: str | bytes, shown: str) -> None:
    """The value of a header that is a list or tuple of name and value is masked."""
    assert redact_tree({"headers": [kind((name, "hush")), kind(("accept", "*/*"))]}) == {
        "headers": [[shown, REDACTED], ["accept", "*/*"]]
    }


@pytest.mark.parametrize("entries", [["The token is not valid.", "x"], ["token", "x", "y"], ["token"], ["x", "token"]])
def test_lists_that_are_not_headers(entries: list[str]) -> None:
    """A list is not a header if its first entry is a sentence or if it does not have two entries."""
    assert redact_tree(entries) == entries


def test_tree_is_json() -> None:
    """The copy contains only JSON types: a cycle is cut off, and other values become strings."""
    cycle: list[object] = [math.nan, b"bytes", None, True, 3]
    cycle.append(cycle)
    text = json.dumps(redact_tree(cycle), allow_nan=False)
    assert text.startswith('["nan", "b\'bytes\'", null, true, 3, [')


@pytest.mark.parametrize(
    "event",
    [
        {"event": "request", "status": 200, "duration_ms": 1.5, "code": None, "cached": True},
        {"event": "request", "request_id": make_jwt()},
        {"event": "request", "password": "x"},
        {"event": "request", "Bearer x": 1},
        {"event": "a=b: c", "path": "/"},
        {"event": "request", "duration_ms": math.nan},
        {"event": "request", "error": ValueError("password=x")},
        {"event": "request", "nested": {"token": "x"}},
        {"event": "pass", "then": "word=x"},
        {},
    ],
)
def test_events_are_redacted_like_trees(event: dict[str, object]) -> None:
    """`redact_event` redacts the fields of a log line exactly as `redact_tree` does."""
    assert redact_event(event) == redact_tree(event)


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.text()))))
def test_any_event_is_redacted_like_a_tree(event: dict[str, object]) -> None:
    """`redact_event` and `redact_tree` return the same result for any event."""
    assert json.dumps(redact_event(event)) == json.dumps(redact_tree(event))
