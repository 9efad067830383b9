"""The processes of `atalaya serve`.

The application, the accounts and the model are imported inside functions: NumPy must not be imported before the
allocator is configured, and one thread loads the model while another imports the application.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import structlog
import typer
from msgspec import Struct
from prometheus_client import CollectorRegistry

from api.http.draining import Draining
from api.server.exit_status import print_error, run_to_exit_status
from api.server.listeners import bind_listeners, local_url
from api.server.shared_directory import read_processes, shared_directory, write_processes
from api.server.stop_signals import raise_at_stop_signals
from api.server.successor import Inheritance, Successor
from api.server.supervisor import Supervisor
from api.server.timeouts import GATEWAY_LIMIT_S, WORKER_LIMIT_S
from api.server.tls import open_tls
from api.server.worker_process import WorkerSlot, fork, preload
from api.settings import Settings, home_folder, reload_settings
from monitoring.logs.outputs import drain_logs, limit_draining
from monitoring.metrics.exposition import serve_metrics
from monitoring.metrics.multiprocess import build_shared_registry, remove_gauges, share_metrics
from monitoring.reporting.logged_errors import reporting_logged_errors
from storage.private_files import replace_private_file

if TYPE_CHECKING:
    from api.server.process import GatewayServer
    from auth.accounts.store import User
    from model.backends.base import Backend
    from monitoring.reporting.sentry import ErrorReporter
    from storage.transactions import Record

_PRELOADED = (
    "storage.without_orm",
    "api.commands.gateway.lean_fastapi",
    "api.app",
    "api.commands.database",
    "api.server.process",
    "monitoring.metrics.exposition",
)

log = structlog.get_logger("atalaya.serve")


class Listeners(Struct, frozen=True):
    """The bound sockets of PORT, which accept requests, and of METRICS_PORT."""

    requests: list[socket.socket]
    metrics: list[socket.socket]

    @property
    def port(self) -> int:
        port: int = self.requests[0].getsockname()[1]
        return port

    def local_url(self, scheme: str) -> str:
        """Return the URL at which this machine reaches the first of the sockets."""
        return local_url(scheme, self.requests[0].getsockname()[0], self.port)


def open_listeners(settings: Settings, port_option: str | None = None) -> Listeners:
    """Bind the sockets. Raises SettingsError, which names the command's option for the port."""
    requests = bind_listeners(settings.host, settings.port, "PORT", port_option)
    if settings.metrics_port is None:
        return Listeners(requests, [])
    return Listeners(requests, bind_listeners(settings.host, settings.metrics_port, "METRICS_PORT"))


def inherit_listeners(inheritance: Inheritance) -> Listeners:
    """Return the listeners of the program that executed this one."""
    return Listeners(list(inheritance.listeners["requests"]), list(inheritance.listeners["metrics"]))


def serve_in_one_process(
    settings: Settings, listeners: Listeners, on_ready: Callable[[], None], stuck_jobs: int
) -> int:
    """Serve until a signal; returns the exit status. If a thread is stuck, execute the program again.

    `on_ready` is called once requests are accepted. `stuck_jobs` is the number of stuck jobs in the programs that this
    process executed before.
    """
    registry = CollectorRegistry()
    # A thread loads the model, mostly without holding the GIL, while this one imports and migrates.
    thread = ThreadPoolExecutor(1, thread_name_prefix="model")
    model = thread.submit(_open_model, settings)
    thread.shutdown(wait=False)
    draining = Draining(stuck_jobs)
    successor = Successor(
        {"requests": listeners.requests, "metrics": listeners.metrics},
        lambda: draining.stuck_jobs,
    )
    server = _make_server(settings, registry, registry, model.result, draining, on_ready, successor)
    _prepare_database(settings)
    _report_unverified_model(settings)
    status = run_to_exit_status(lambda: _run(server, listeners, registry))
    if server.replacing:
        successor.start()
    _end_stuck_threads(status)
    return status


def serve_with_workers(
    settings: Settings, options: dict[str, Any], listeners: Listeners, on_ready: Callable[[], None]
) -> int:
    """Serve with WEB_CONCURRENCY workers until a signal; returns the exit status.

    `options` are the settings from the command line, which each worker applies again. `on_ready` is called once the
    first worker accepts requests.
    """

    def prepare() -> int:
        _make_server(settings, CollectorRegistry(), CollectorRegistry(), partial(_open_model, settings), Draining())
        _prepare_database(settings)
        _report_unverified_model(settings)
        return 0

    # The supervisor computes its limit for killing a worker from the first, and runs as many workers as the second.
    fixed: dict[str, Any] = {"drain_seconds": settings.drain_seconds, "web_concurrency": settings.web_concurrency}

    with shared_directory() as directory:
        metrics = directory / "metrics"
        metrics.mkdir()

        def work(slot: WorkerSlot) -> int:
            share_metrics(metrics, slot.number)
            shown = build_shared_registry(metrics, lambda: read_processes(directory).pids)
            # Read the settings again, so that a restart applies changes.
            settings = reload_settings(**options, **fixed, atalaya_shared=directory)
            model = partial(_open_model, settings)
            server = _make_server(settings, CollectorRegistry(), shown, model, Draining(), slot.report_ready)
            return _run(server, listeners, shown)

        preload(_PRELOADED)
        # In a child, so that the supervisor opens no database.
        _, failed = os.waitpid(fork(prepare), 0)
        supervisor = Supervisor(
            settings.web_concurrency,
            work,
            listeners.requests,
            shutdown_limit_s=settings.drain_seconds + WORKER_LIMIT_S,
            on_ready=on_ready,
            on_change=partial(write_processes, directory),
            on_exit=partial(remove_gauges, metrics),
        )
        if os.WIFSIGNALED(failed):
            return print_error(
                f"Signal {os.WTERMSIG(failed)} ended the preparation of the start; 9 can mean too little memory."
            )
        if failed:
            return 1
        from api.services.runtime import open_error_reporter

        reporter = open_error_reporter(settings, lambda: None)
        os.register_at_fork(before=reporter.flush)
        try:
            with reporting_logged_errors(reporter):
                return supervisor.run()
        finally:
            _close_in_time(reporter, supervisor.signalled_at, settings.drain_seconds + GATEWAY_LIMIT_S)


def _close_in_time(reporter: ErrorReporter, signalled_at: float | None, limit_s: float) -> None:
    """Send the last error reports and log lines, at most until `limit_s` after the signal to stop."""
    if signalled_at is None:
        reporter.close()
        return
    end_at = signalled_at + limit_s
    reporter.close((end_at - time.monotonic()) / 2)  # the other half is for the log
    limit_draining(end_at)


def _prepare_database(settings: Settings) -> None:
    """Apply the migrations. On the first start, create the user `admin`, and print or store its password once."""
    from api.commands.database import CommandEvent, recording, run_with_accounts

    record: Record[User] = recording(
        lambda user: CommandEvent("user", "created", f"user:{user.id}", {"role": user.role})
    )
    password = run_with_accounts(settings, lambda accounts: accounts.bootstrap_admin(record), create=True)
    if password is not None:
        typer.echo(_deliver_password(password, settings), err=True)


def _deliver_password(password: str, settings: Settings) -> str:
    """Return the message about the first administrator's password, which contains it only on a developer's terminal.

    Anywhere else, standard error goes to a log that is stored and read by many, so a private file gets the password. In
    production, a terminal may be that of a container (`docker run --tty`), whose output is logged.
    """
    if sys.stderr.isatty() and not settings.in_production:
        return f"First start: the user `admin` has the password {password} (shown only once)."
    path = home_folder() / "var" / "admin-password"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replace_private_file(path) as (_, file):
            file.write(f"{password}\n")
    except OSError:
        return "First start: created the user `admin`. Set its password with `atalaya users passwd admin`."
    return f"First start: the password of the user `admin` is in {path}. Read it and delete the file."


def _open_model(settings: Settings) -> Backend:
    """Raises SettingsError, ArtefactError."""
    from api.services.opening import open_model

    return open_model(settings)


def _make_server(
    settings: Settings,
    registry: CollectorRegistry,
    shown: CollectorRegistry,
    open_model: Callable[[], Backend],
    draining: Draining,
    on_ready: Callable[[], None] | None = None,
    successor: Successor | None = None,
) -> GatewayServer:
    """Create the application and its server, and open nothing yet. Raises SettingsError, WeakSigningKey."""
    # Before the application, which imports SQLAlchemy and FastAPI.
    import_module("storage.without_orm")
    import_module("api.commands.gateway.lean_fastapi")
    from api.app import create_app
    from api.server.process import make_server

    tls = open_tls(settings)
    app = create_app(
        settings,
        registry=registry,
        shown=shown,
        draining=draining,
        open_model=open_model,
        tls=tls,
    )
    return make_server(app, settings, draining, on_ready, successor, tls=tls)


def _report_unverified_model(settings: Settings) -> None:
    if settings.artefact_key() is None:
        log.info("artefact_signature_not_required", setting="MODEL__VERIFY_KEY")


def _run(server: GatewayServer, listeners: Listeners, shown: CollectorRegistry) -> int:
    """Serve until a signal. Raises the error that prevents the start."""
    from api.routes.metrics import encode_metrics

    raise_at_stop_signals()
    with ExitStack() as stack:
        for listener in listeners.metrics:
            stack.enter_context(serve_metrics(listener, partial(encode_metrics, shown)))
        with suppress(KeyboardInterrupt):
            server.run(listeners.requests)
    return 0


def _end_stuck_threads(status: int) -> None:
    """Exit at once if a worker thread is still running, because a normal exit of the interpreter might crash then."""
    from model.serving.workers import is_any_worker_alive

    if is_any_worker_alive():
        drain_logs()
        os._exit(status)
