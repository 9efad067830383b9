"""ALLOWED_HOSTS: the forms that are accepted, and the Host headers that they match."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from api.errors import SettingsError
from api.http.addresses.host_names import make_host_matcher
from api.settings import Settings, load_settings


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "example.org",
        "EXAMPLE.org.",
        "*.example.org",
        "my_service",
        "192.0.2.1",
        "[2001:db8::1]",
        "example.org:8443",
        "[::1]:80",
    ],
)
def test_names_that_can_match_are_accepted(value: str) -> None:
    """A host name, a wildcard, an address, and a name or address with a port are accepted."""
    assert Settings(allowed_hosts=(value,)).allowed_hosts == (value,)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("https://example.org", "without scheme and path"),
        ("example.org/", "without scheme and path"),
        (".example.org", r"\*\.example\.org for the names below it"),
        ("a..example.org", "must be host names"),
        ("*example.org", "must be host names"),
        ("a.*.example.org", "must be host names"),
        ("*.", "must be host names"),
        ("example.org:https", "must be host names"),
        ("two names.example.org", "must be host names"),
        ("ana@example.org", "must be host names"),
        ("-example.org", "must be host names"),
        (f"{'a' * 64}.org", "must be host names"),
        ("::1", r"needs brackets, such as \[::1\]"),
        ("[::1", "must be host names"),
        ("flächen.example.org", "begins with xn--"),
    ],
)
def test_names_that_cannot_match_are_rejected(monkeypatch: pytest.MonkeyPatch, value: str, text: str) -> None:
    """A value that no Host header can match is rejected at startup, with a hint."""
    monkeypatch.setenv("ALLOWED_HOSTS", f"localhost, {value}")
    with pytest.raises(SettingsError, match=f"^ALLOWED_HOSTS: .*{text}"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("land.example.org", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evil-example.org", False),
        ("evilexample.org", False),
        ("example.org.evil", False),
        (".example.org", False),
        ("*.example.org", False),
        ("localhost", True),
        ("", False),
    ],
)
def test_wildcard_matches_only_names_below_it(name: str, matches: bool) -> None:
    """`*.example.org` matches every name below example.org, but not example.org itself or evil-example.org."""
    assert make_host_matcher({"*.example.org", "localhost"})(name) is matches


@pytest.mark.parametrize("allowed", [(), ("land.example.org",)])
@pytest.mark.parametrize("variable", ["railway_environment_id", "railway_private_domain", "railway_public_domain"])
def test_health_checks_of_railway_are_allowed_on_railway(variable: str, allowed: tuple[str, ...]) -> None:
    """On Railway, the host name of its health checks is allowed, whether or not ALLOWED_HOSTS is set."""
    name = "healthcheck.railway.app"
    assert name in Settings.model_validate({variable: "land.up.railway.app", "allowed_hosts": allowed}).host_names
    assert name not in Settings(allowed_hosts=allowed).host_names


@pytest.mark.parametrize("variable", ["RAILWAY_PUBLIC_DOMAIN", "RAILWAY_PRIVATE_DOMAIN"])
@pytest.mark.parametrize(
    "value", ["https://land.up.railway.app/", "land.up.railway.app/", "land.up.railway.app:443", "*.railway.app", "*"]
)
def test_domains_of_railway_are_host_names(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """A value that is not a host name, which no request could match, prevents the start."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}: must be a host name without scheme, port and path"):
        load_settings()


def test_an_ipv6_address_to_listen_on_may_have_brackets() -> None:
    """HOST accepts an IPv6 address with and without brackets."""
    assert Settings(host="[::1]").host == Settings(host="::1").host == "::1"


def test_a_star_is_no_address_to_listen_on() -> None:
    """HOST=* is rejected: its meaning differs between programs."""
    with pytest.raises(ValidationError, match="Use :: for every IPv4 and IPv6 address"):
        Settings(host="*")
