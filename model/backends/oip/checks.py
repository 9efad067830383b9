"""Resolves the engines' host names, and checks each engine before it gets requests."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

from model.backends.oip.address import EngineAddress, Host
from model.backends.oip.connections import ConnectionLost, Connections, Transport
from model.backends.oip.endpoints import Endpoint, Endpoints
from model.backends.oip.errors import EngineFailed, EngineMismatch, EngineUnavailable
from model.backends.oip.events import EngineEvent, EventKind
from model.backends.oip.metadata import EngineModel
from model.backends.oip.wire import describe_error
from model.errors import DeadlineExceeded

RESOLVE_INTERVAL_S = 5.0
_CHECK_INTERVAL_S = 0.1
_CHECK_LIMIT_S = 5.0
# Reads the metadata of the server and of the model. Raises EngineMismatch.
ReadMetadata = Callable[[Mapping[str, Any], Mapping[str, Any]], EngineModel]


class EndpointChecks:
    """Keeps `endpoints` equal to the addresses that the host names resolve to, and admits each that passes a check."""

    def __init__(
        self,
        address: EngineAddress,
        transport: Transport,
        endpoints: Endpoints,
        read: ReadMetadata,
        report: Callable[[EngineEvent], None],
    ) -> None:
        self._address = address
        self._transport = transport
        self._endpoints = endpoints
        self._read = read
        self._report = report
        self._stopped = threading.Event()
        self._resolved_at = 0.0
        self._problem = "no host name can be resolved"
        self._mismatch: EngineMismatch | None = None
        self._thread = threading.Thread(target=self._run, name="engine_checks", daemon=True)

    def start(self, wait_s: float) -> None:
        """Check all endpoints repeatedly until one works or `wait_s` seconds have passed.

        Raises EngineMismatch if none works and one serves another model, and EngineUnavailable.
        """
        until = time.monotonic() + wait_s
        while True:
            self._check_due()
            if self._endpoints.models:
                return
            if self._mismatch is not None:
                raise self._mismatch
            if time.monotonic() >= until:
                raise EngineUnavailable(
                    f"No inference engine is available: {self._problem}. Check MODEL__URL, or start the engine."
                )
            self._stopped.wait(_CHECK_INTERVAL_S)

    def follow(self) -> None:
        """Check endpoints in a thread until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(_CHECK_INTERVAL_S):
            self._check_due()

    def _check_due(self) -> None:
        """Check the endpoints that are due, in parallel. The next round waits until all have responded or timed out."""
        now = time.monotonic()
        if not self._endpoints.all or now - self._resolved_at >= RESOLVE_INTERVAL_S:
            self._resolved_at = now
            self._resolve()
        due = [endpoint for endpoint in self._endpoints.all if endpoint.check_at <= now]
        threads = [threading.Thread(target=self._check, args=(endpoint,), daemon=True) for endpoint in due]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _resolve(self) -> None:
        """Resolve all host names. If one fails, keep its endpoints, or add an endpoint that cannot be reached."""
        endpoints = list[Endpoint]()
        for host in self._address.hosts:
            try:
                endpoints += self._resolve_host(host)
            except (OSError, UnicodeError):
                previous = [endpoint for endpoint in self._endpoints.all if endpoint.host == host]
                endpoints += previous or [self._make_endpoint(host, host.name)]
        for endpoint in self._endpoints.replace(endpoints):
            self._report(EngineEvent(EventKind.REMOVED, endpoint.label))

    def _resolve_host(self, host: Host) -> Iterator[Endpoint]:
        """Yield an endpoint for each address of the host. Raises OSError, UnicodeError."""
        flags = int(socket.AI_ADDRCONFIG)  # only IP versions that this machine has
        with suppress(ValueError):
            ip_address(host.name)
            flags = 0
        for *_, address in socket.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM, flags=flags):
            yield self._make_endpoint(host, str(address[0]))

    def _make_endpoint(self, host: Host, ip: str) -> Endpoint:
        label = f"[{ip}]:{host.port}" if ":" in ip else f"{ip}:{host.port}"
        return Endpoint(label, host, Connections(host.name, host.port, ip, self._transport))

    def _check(self, endpoint: Endpoint) -> None:
        """Admit the endpoint or eject it, and set the time of its next check."""
        try:
            model = self._read_model_with_retry(endpoint.connections)
        except EngineMismatch as error:
            self._mismatch = error
            self._reject(endpoint, f"{error.code}: {error}")
        except EngineFailed as error:
            self._reject(endpoint, error.detail)
        except ConnectionLost as error:
            is_unknown = isinstance(error.__cause__, socket.gaierror)
            self._reject(endpoint, "its name cannot be resolved" if is_unknown else "it cannot be reached")
        except DeadlineExceeded:
            self._reject(endpoint, "it does not respond", unless_last=True)
        except Exception as error:  # whatever an engine sends, the checks must continue
            self._reject(endpoint, f"the check failed ({type(error).__name__})")
        else:
            if self._endpoints.admit(endpoint, model):
                self._report(describe_admission(endpoint, model))

    def _read_model_with_retry(self, connections: Connections) -> EngineModel:
        """Retry once on a new connection if the engine has closed an idle one. Raises the errors of `_read_model`."""
        try:
            return self._read_model(connections)
        except ConnectionLost as error:
            if not error.was_kept:
                raise
        return self._read_model(connections)

    def _reject(self, endpoint: Endpoint, detail: str, *, unless_last: bool = False) -> None:
        self._problem = f"{endpoint.label}: {detail}"
        if self._endpoints.eject(endpoint, detail, unless_last=unless_last):
            self._report(describe_ejection(endpoint))

    def _read_model(self, connections: Connections) -> EngineModel:
        """Check that the model is ready, and read the metadata.

        Raises ConnectionLost, DeadlineExceeded, EngineFailed, EngineMismatch.
        """
        until = time.monotonic() + _CHECK_LIMIT_S
        _get(connections, f"{self._address.path}/ready", until)
        server, model = (_get_document(connections, path, until) for path in ("/v2", self._address.path))
        return self._read(server, model)


def describe_ejection(endpoint: Endpoint) -> EngineEvent:
    return EngineEvent(EventKind.EJECTED, endpoint.label, detail=endpoint.problem)


def describe_admission(endpoint: Endpoint, model: EngineModel) -> EngineEvent:
    missing = sorted({"pooled", "features"} - model.outputs)
    return EngineEvent(EventKind.ADMITTED, endpoint.label, detail=", ".join(missing))


def _get_document(connections: Connections, path: str, until: float) -> dict[str, Any]:
    """Return the JSON object at `path`. Raises ConnectionLost, DeadlineExceeded, EngineFailed."""
    try:
        document = json.loads(_get(connections, path, until))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise EngineFailed(f"GET {path} has no JSON object")
    return document


def _get(connections: Connections, path: str, until: float) -> bytes:
    """Return the body at `path`. Raises ConnectionLost, DeadlineExceeded, EngineFailed."""
    reply = connections.exchange("GET", path, until)
    if reply.status != HTTPStatus.OK:
        raise EngineFailed(f"GET {path} has the status {reply.status}: {describe_error(reply.body)}")
    return reply.body
