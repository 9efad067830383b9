"""Errors about values: they say what is allowed, in plain words and without the value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from api.errors import SettingsError
from api.settings import Settings, load_settings
from api.settings.reading.names import list_names


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ENVIRONMENT", "prod", "must be development or production"),
        ("PORT", "http", "must be a whole number from 0 to 65535"),
        ("PORT", "70000", "must be a whole number from 0 to 65535"),
        ("DRAIN_SECONDS", "soon", "must be a number from 0 to 300"),
        ("MODEL__ABSTAIN", "never", "must be off, mark or refuse"),
        ("CANARY__MODE", "hush", "must be off, shadow or canary"),
        ("CANARY__ALIAS", "../hush", "must be the name of an alias"),
        ("CANARY__SHARE", "0", "must be a number greater than 0 and at most 1"),
        ("CANARY__LIMITS", "hush", "must be JSON in one line"),
        ("MODEL__REGISTRY", "mlflow+http://ana:hush@models", "must be file://FOLDER, the folder of a registry"),
        ("MODEL__REGISTRY", "mlflow+http://", "must be file://FOLDER, the folder of a registry"),
        ("MODEL__REGISTRY", "http://hush", "must be file://FOLDER, the folder of a registry"),
        ("MODEL__VERIFY_KEY", "hush", "must be the public key that verifies signatures of artefacts"),
        ("MODEL__QUEUE_SECONDS", "0", "must be a number greater than 0 and at most 60"),
        ("AUTH__SESSION_SECONDS", "1", "must be a whole number at least 3600"),
        ("COST__CURRENCY", "hush", "must be the ISO 4217 code of a currency"),
        ("COST__VCPUS", "0", "must be a number greater than 0"),
        ("MONITORING__USAGE_CALLERS", "all", "must be a whole number from 0 to 1000"),
        ("LOG_LEVEL", "loud", "must be debug, info, warning or error"),
        ("DOCS", "maybe", "must be true or false"),
        ("LIMITS__PREDICT", "fast", "must be N/second, N/minute, N/hour or N/day, such as 100/minute"),
        ("LIMITS__PREDICT", "10/0 minute", "must be N/second, N/minute, N/hour or N/day, such as 100/minute"),
        (
            "LIMITS__TRUSTED_PROXIES",
            "proxy",
            "must be IP addresses, networks such as 10.0.0.0/8, or cloudflare or cloudfront",
        ),
        ("CORS_ORIGINS", "https://app.example.org/hush", "must be origins such as https://app.example.org"),
        ("CORS_ORIGINS", "https://hush@app.example.org", "must be origins such as https://app.example.org"),
        ("CORS_ORIGINS", "https://*.example.org", "must be origins such as https://app.example.org"),
        ("CORS_ORIGINS", "*,https://app.example.org", "* allows every origin"),
        ("AUTH__CLIENT_CERTIFICATES", '{"hush": "ana"}', "must map subjects as in RFC 4514 to user names"),
        ("AUTH__CLIENT_CERTIFICATES", '["hush"]', "must be a JSON object"),
        ("AUTH__ISSUERS", "hush", "must be JSON in one line"),
        ("AUTH__ISSUERS", '{"a": 1}', "must be a JSON list"),
        ("AUTH__SIGNIN_KEY", "hush", "is not a setting. Did you mean AUTH__SIGNING_KEY?"),
        ("MODEL__URLL", "hush", "is not a setting. Did you mean MODEL__URL?"),
        ("AUTH__AUDIENCE", os.fsdecode(b"fl\xe4che"), "is not UTF-8 text"),
        ("AUTH__ISSUER", "land.example.org", "must be the gateway's public address with its scheme"),
        ("AUTH__ISSUER", "https://", "must be the gateway's public address with its scheme"),
        ("AUTH__ISSUER", "https://land.example.org?hush", "must be the gateway's public address with its scheme"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "must be the collector's address"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization", "must be NAME=VALUE pairs"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "must be a number from 0 to 1"),
        ("SENTRY_DSN", "https://hush@sentry.example.org", "must be https://KEY@HOST/NUMBER"),
        ("DATABASE_URL", "mysql://ana:hush@db/land", "must start with postgresql:// or sqlite:///"),
        ("DATABASE_URL", "postgresql://ana:hush@db/land?foo=1", "has the parameter foo"),
        ("LOGS__FORMAT", "xml", "must be otel, ecs, datadog, logfmt or console"),
        ("LOGS__KEEP_DAYS", "0", "must be a whole number from 1 to 3650"),
        ("LOGS__SEND_URL", "ftp://hush", "must be the http:// or https:// URL to which log lines are posted"),
        ("LOGS__SEND_HEADERS", "DD-API-KEY: hush", "must be a JSON object of header names and values"),
        ("LOGS__SEND_HEADERS", '{"DD API KEY": "hush"}', "must be a JSON object of header names and values"),
        ("LOGS__SEND_HEADERS", '{"DD-API-KEY": "hush\\r\\nX: y"}', "must be a JSON object of header names and values"),
        ("REDIS_URL", "http://:hush@cache", "must be redis://"),
        ("REDIS_URL", "redis://:hush@cache?ssl=maybe", "the parameter ssl is not supported"),
        ("REDIS_URL", "redis://:hush@cache?protocol=3", "the parameter protocol is not supported"),
        ("REDIS_URL", "redis://:hush@cache?ssl_cert_reqs=none", "the parameter ssl_cert_reqs is not supported"),
        ("REDIS_URL", "rediss://:hush@cache?ssl_cert_reqs=hush", "the parameter ssl_cert_reqs must be none"),
        ("REDIS_URL", "redis://:hush@cache?db=hush", "the parameter db must be a number"),
    ],
)
def test_error_says_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, text: str
) -> None:
    """An error names the setting and says in plain words what is allowed, without the value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: {text}")
    assert "hush" not in problem


def test_no_text_is_pydantic_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No error about an invalid value mentions pydantic's inputs, patterns or Python's types."""
    monkeypatch.chdir(tmp_path)
    for name in list_names():
        monkeypatch.setenv(name, "?")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert len(caught.value.problems) > 20
    for problem in caught.value.problems:
        assert not any(word in problem for word in ("Input", "Value error", "pattern", "tuple", "dict", "str ")), (
            problem
        )


@pytest.mark.parametrize(
    ("url", "translated"),
    [
        ("redis://cache:6379/1", "redis://cache:6379/1"),
        ("redis://cache?ssl=true", "rediss://cache"),
        ("redis://cache?tls=1&family=0", "rediss://cache"),
        ("rediss://cache/2?ssl=true&family=6&ssl_cert_reqs=none", "rediss://cache/2?ssl_cert_reqs=none"),
        ("redis://cache?ssl=false&socket_timeout=0.5", "redis://cache?socket_timeout=0.5"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
    ],
)
def test_redis_urls_of_other_ecosystems_are_translated(url: str, translated: str) -> None:
    """The parameters `ssl`, `tls` and `family` of other clients become what redis-py understands."""
    redis_url = Settings(redis_url=url).redis_url
    assert redis_url is not None
    assert redis_url.get_secret_value() == translated
