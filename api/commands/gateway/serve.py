"""`atalaya serve`: check the settings, bind the ports, then run one process or several until a signal."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from api.commands.gateway.log_outputs import start_logging
from api.commands.gateway.processes import (
    Listeners,
    inherit_listeners,
    open_listeners,
    serve_in_one_process,
    serve_with_workers,
)
from api.commands.gateway.running import RunningGateway, announce
from api.errors import EXIT_INTERRUPTED
from api.production import find_start_problems, find_storage_risk, restrict_secret_files
from api.server.allocator import limit_memory_use
from api.server.stop_signals import exit_at_stop_signals
from api.server.successor import INHERIT_OPTION, Inheritance, release_held_signals
from api.settings import Settings, load_settings
from monitoring.logs.standard_streams import queue_standard_streams

log = structlog.get_logger("atalaya.serve")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: $HOST, or 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on. Default: $PORT, or 8000.", min=0, max=65535)
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Use TLS with this certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Accept client certificates of this CA.")] = None,
    inherit: Annotated[str | None, typer.Option(INHERIT_OPTION, hidden=True)] = None,
) -> int:
    """Serve predictions until SIGINT or SIGTERM."""
    limit_memory_use()
    queue_standard_streams()  # the gateway must never wait for the reader of its log
    exit_at_stop_signals(0, EXIT_INTERRUPTED)
    release_held_signals()
    addresses = {"host": host, "port": port}
    paths = {"tls_certificate": tls_certificate, "tls_key": tls_key, "tls_client_ca": tls_client_ca}
    # Unlike those in the settings, paths on the command line are relative to the working directory.
    options: dict[str, Any] = {name: path.absolute() for name, path in paths.items() if path is not None}
    options |= {name: value for name, value in addresses.items() if value is not None}
    settings = load_settings(find_start_problems, **options)
    if inherit is None:
        return serve_on(settings, options, open_listeners(settings, "--port"), report_ready)
    inheritance = Inheritance.take_over(inherit)
    return serve_on(settings, options, inherit_listeners(inheritance), report_ready, inheritance.stuck_jobs)


def report_ready(url: str, settings: Settings) -> None:
    """Report where the gateway listens: in a sentence on a terminal, else in the log."""
    if sys.stdout.isatty():
        typer.echo(describe_serving(url, settings))
    else:
        log.info("gateway_ready", **{"url.full": url})


def describe_serving(url: str, settings: Settings) -> str:
    documentation = f" The documentation is at {url}/docs." if settings.docs_enabled else ""
    return f"Serving at {url}.{documentation} Press Ctrl-C to stop."


def serve_on(
    settings: Settings,
    options: dict[str, Any],
    listeners: Listeners,
    on_ready: Callable[[str, Settings], None],
    stuck_jobs: int = 0,
) -> int:
    """Serve on bound sockets; returns the exit status. `options` are the settings from the command line.

    `on_ready` is called with the address once requests are accepted. `stuck_jobs` is the number of stuck jobs in the
    programs that this process executed before.
    """
    start_logging(settings)
    restrict_secret_files(settings)
    _warn_of_storage_risk(settings)
    if settings.model.mlflow_url is not None:
        from api.services.mirror.process import pull_first  # after the allocator was configured: it loads NumPy

        pull_first(settings)
    gc.disable()  # until start-up is complete, because imports and opening services create hardly any garbage
    url = listeners.local_url("https" if settings.tls_certificate else "http")
    with announce(RunningGateway(url, settings.issuer), listeners.port):
        if settings.web_concurrency > 1:
            return serve_with_workers(settings, options, listeners, partial(on_ready, url, settings))
        return serve_in_one_process(settings, listeners, partial(on_ready, url, settings), stuck_jobs)


def _warn_of_storage_risk(settings: Settings) -> None:
    risk = find_storage_risk(settings) if settings.in_production else None
    if risk is not None:
        log.warning("database_not_durable", reason=risk)
