"""`atalaya serve`: migrations, the first administrator, then one process or several until a signal."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.errors import SettingsError
from api.settings import Settings, load_settings

if TYPE_CHECKING:
    import socket

    from prometheus_client import CollectorRegistry

    from api.server.process import GatewayServer
    from api.server.supervisor import WorkerSlot
    from model.backends.base import Backend
    from monitoring.sentry import ErrorReporter

_PARENT_WAITS_S = 0.5  # longer than a worker gives itself


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; $PORT, or 8000, if absent.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Speak TLS with this certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Accept certificates of this CA from clients.")] = None,
) -> int:
    """Serve predictions until SIGINT or SIGTERM."""
    from api.production import check_keys
    from api.server.allocator import keep_memory_small
    from api.server.tls import server_context
    from monitoring.logs import configure_logging

    keep_memory_small()
    # uvicorn closes in order, then raises the signal anew: to have been asked to stop is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    paths = {"tls_certificate": tls_certificate, "tls_key": tls_key, "tls_client_ca": tls_client_ca}
    given = {name: path for name, path in paths.items() if path is not None}
    settings = load_settings(**given)
    configure_logging(settings.log_level)
    check_keys(settings)
    server_context(settings)  # each process makes its own; what is wrong with the files is said here
    doors = _open_doors(settings, host, settings.port if port is None else port)
    gc.disable()  # until all is imported and opened: hardly anything of that is garbage
    if settings.web_concurrency > 1:
        return _serve_with_workers(settings, given, doors)
    return _serve_alone(settings, doors)


def prepare_database(settings: Settings) -> None:
    """Bring the schema to its head; on the first start, make `admin` and show its password once."""
    from api.commands.database import Note
    from api.commands.users import with_accounts

    password = with_accounts(
        settings, lambda accounts: accounts.bootstrap_admin(), lambda made: Note("user", "created") if made else None
    )
    if password is not None:
        # Not through the log: what is logged is kept.
        typer.echo(f"First start: the user `admin` has the password {password} (shown once).", err=True)


@dataclass(frozen=True, slots=True)
class _Doors:
    """Bound before anything else is done: that a port is taken shows at once."""

    requests: list[socket.socket]
    metrics: socket.socket | None


def _open_doors(settings: Settings, host: str, port: int) -> _Doors:
    """Raises SettingsError."""
    from api.server.process import listen_at

    requests = listen_at(host, port, "PORT")
    if settings.metrics_port is None:
        return _Doors(requests, None)
    (metrics,) = listen_at("0.0.0.0", settings.metrics_port, "METRICS_PORT")  # noqa: S104  (the network keeps it private)
    return _Doors(requests, metrics)


def _serve_alone(settings: Settings, doors: _Doors) -> int:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    # While this thread imports and migrates, another loads the model, most of the time without the interpreter's lock.
    thread = ThreadPoolExecutor(1, thread_name_prefix="model")
    model = thread.submit(_open_model, settings)
    thread.shutdown(wait=False)
    server = _server(settings, registry, registry, model.result)
    prepare_database(settings)
    return _run(server, doors, registry)


def _serve_with_workers(settings: Settings, given: dict[str, Any], doors: _Doors) -> int:
    from prometheus_client import CollectorRegistry

    from api.server.process import END_LIMIT_S
    from api.server.shared_directory import shared_folder
    from api.server.supervisor import Workers, fork, freeze_imports
    from monitoring.multiprocess import forget_gauges, share_metrics, shared_registry

    def prepare() -> int:
        _server(settings, CollectorRegistry(), CollectorRegistry(), partial(_open_model, settings))
        prepare_database(settings)
        return 0

    with shared_folder() as folder:
        metrics, processes = folder / "metrics", folder / "processes"
        metrics.mkdir()

        def work(place: WorkerSlot) -> int:
            share_metrics(metrics, place.number)
            shown = shared_registry(metrics, lambda: [int(pid) for pid in processes.read_text().split()])
            settings = load_settings(atalaya_shared=folder, **given)  # anew: a restart takes up what has changed
            model = partial(_open_model, settings)
            return _run(_server(settings, CollectorRegistry(), shown, model, place.begin), doors, shown)

        def note_processes(pids: list[int]) -> None:
            processes.with_suffix(".new").write_text("\n".join(map(str, pids)))
            processes.with_suffix(".new").replace(processes)

        freeze_imports()
        _, prepared = os.waitpid(fork(prepare), 0)
        workers = Workers(
            settings.web_concurrency,
            work,
            doors.requests,
            end_limit_s=settings.drain_seconds + END_LIMIT_S + _PARENT_WAITS_S,
            on_change=note_processes,
            on_end=lambda place: forget_gauges(metrics, place),
        )
        return 1 if prepared else workers.run()


def _open_model(settings: Settings) -> Backend:
    from model.backends.open import open_warm
    from model.errors import BackendURLError

    try:
        return open_warm(settings.model.url, settings.inferences_at_once)
    except BackendURLError as error:
        raise SettingsError(f"MODEL__URL: {error}") from None


def _server(
    settings: Settings,
    registry: CollectorRegistry,
    shown: CollectorRegistry,
    open_model: Callable[[], Backend],
    on_ready: Callable[[], None] | None = None,
) -> GatewayServer:
    """Nothing is opened yet. Raises SettingsError, WeakSigningKey."""
    from api.app import create_app
    from api.http.draining import Draining
    from api.server.process import gateway_server

    draining = Draining()
    app = create_app(
        settings,
        registry=registry,
        shown=shown,
        reporter=_reporter(settings),
        draining=draining,
        open_model=open_model,
    )
    return gateway_server(app, settings, draining, on_ready)


def _run(server: GatewayServer, doors: _Doors, shown: CollectorRegistry) -> int:
    """Raises what keeps it from starting."""
    from monitoring.exposition import metrics_port

    with ExitStack() as stack:
        if doors.metrics is not None:
            stack.enter_context(metrics_port(doors.metrics, shown))
        with suppress(KeyboardInterrupt):
            server.run(doors.requests)
    return 0


def _reporter(settings: Settings) -> ErrorReporter:
    from importlib.metadata import version

    from monitoring.sentry import open_reporter

    dsn = settings.sentry_dsn.get_secret_value() if settings.sentry_dsn else None
    try:
        return open_reporter(dsn, environment=settings.environment, release=f"atalaya@{version('atalaya')}")
    except ValueError:
        raise SettingsError("SENTRY_DSN: this is no DSN. Copy it from the project's settings in Sentry.") from None
