"""The URL of a model on inference engines: oip+http(s)://HOST[:PORT][,HOST…]/MODEL[/VERSION]."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from msgspec import Struct

from model.errors import BackendURLError

SCHEMES = ("oip+http", "oip+https")
_FORM = "oip+http://HOST[:PORT][,HOST…]/MODEL[/VERSION], or oip+https:// for TLS"
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Host(Struct, frozen=True):
    """A host name or an IP address, and a port. Several engines may be behind it."""

    name: str
    port: int


class EngineAddress(Struct, frozen=True):
    """A model on one or more hosts. Without `version`, each engine chooses the version by its own policy."""

    tls: bool
    hosts: tuple[Host, ...]
    model: str
    version: str | None = None

    @property
    def path(self) -> str:
        """The path of the model in the protocol's URLs, with its version if one is set."""
        model = f"/v2/models/{quote(self.model)}"
        return model if self.version is None else f"{model}/versions/{quote(self.version)}"


def parse_address(url: str) -> EngineAddress:
    """Parse the URL of a model. Raises BackendURLError, whose message never repeats credentials from the URL."""
    scheme, _, rest = url.partition("://")
    hosts, _, path = rest.partition("/")
    segments = path.split("/")
    if "@" in url:
        raise BackendURLError("The URL of an engine must not contain credentials. Use MODEL__ENGINE_TOKEN.")
    valid_path = len(segments) in (1, 2) and all(map(_SEGMENT.fullmatch, segments))
    if scheme not in SCHEMES or not valid_path:
        raise BackendURLError(f"{url!r} is not the URL of a model on an engine. Use {_FORM}.")
    protocol = scheme.removeprefix("oip+")
    parsed = tuple(_parse_host(protocol, host) for host in hosts.split(","))
    return EngineAddress(protocol == "https", parsed, *segments)


def _parse_host(protocol: str, text: str) -> Host:
    """Parse HOST or HOST:PORT. Raises BackendURLError."""
    try:
        parts = urlsplit(f"{protocol}://{text}")
        port = _DEFAULT_PORTS[protocol] if parts.port is None else parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    if not parts.hostname or not port or parts.netloc != text:
        raise BackendURLError(f"{text!r} is not HOST or HOST:PORT. Use {_FORM}.")
    return Host(parts.hostname, port)
