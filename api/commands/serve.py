"""`atalaya serve`: migrations, the first administrator, then uvicorn until a signal."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from api.settings import Settings, load_settings


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; $PORT, or 8000, if absent.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Speak TLS with this certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Accept certificates of this CA from clients.")] = None,
) -> None:
    """Serve predictions until SIGINT or SIGTERM."""
    import uvicorn
    from prometheus_client import CollectorRegistry

    from api.allocator import keep_memory_small
    from api.app import create_app
    from api.tls import CertificateProtocol, server_context
    from monitoring.logs import configure_logging
    from monitoring.sentry import open_reporter

    keep_memory_small()
    # uvicorn closes in order, then raises the signal anew: to have been asked to stop is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    given = {"tls_certificate": tls_certificate, "tls_key": tls_key, "tls_client_ca": tls_client_ca}
    settings = load_settings(**{name: path for name, path in given.items() if path is not None})
    context = server_context(settings)
    configure_logging(settings.log_level)
    reporter = open_reporter(
        settings.sentry_dsn.get_secret_value() if settings.sentry_dsn else None,
        environment=settings.environment,
        release=_version(),
    )
    app = create_app(settings, registry=CollectorRegistry(), reporter=reporter)
    prepare_database(settings)
    uvicorn.run(
        app,
        host=host,
        port=settings.port if port is None else port,
        loop="uvloop",
        http=CertificateProtocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # TrustedProxies judges them
        timeout_graceful_shutdown=10,
        ssl_context_factory=None if context is None else lambda *_: context,
    )


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


def _version() -> str:
    from importlib.metadata import version

    return f"atalaya@{version('atalaya')}"
