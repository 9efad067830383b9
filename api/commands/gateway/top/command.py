"""`atalaya top`: read a gateway's metrics repeatedly, and show a summary of them."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from api.commands.gateway.failures import check_url
from api.commands.gateway.top.samples import ScrapeInterval
from api.commands.gateway.top.sources import MetricsSource, find_metrics, read_alerts
from api.commands.gateway.top.summary import summarize
from api.commands.gateway.top.view import render
from api.commands.output import JsonFlag, print_json
from api.errors import CommandFailed
from monitoring.chains.timestamps import format_timestamp


def top(
    url: Annotated[
        str | None, typer.Option(help="URL of the gateway. Default: the one running in this installation.")
    ] = None,
    token: Annotated[
        str,
        typer.Option(help="Access token; not needed if METRICS_PORT is set.", envvar="ATALAYA_TOKEN"),
    ] = "",
    key: Annotated[str, typer.Option(help="An API key, instead of a token.", envvar="ATALAYA_KEY")] = "",
    alerts_url: Annotated[
        str | None, typer.Option(help="URL of a Prometheus or Alertmanager server whose firing alerts to show.")
    ] = None,
    interval: Annotated[float, typer.Option(help="Seconds between updates.", min=0.2, max=3600)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one interval and exit.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what a running gateway is doing, until Ctrl-C."""
    if alerts_url is not None:
        check_url(alerts_url, "--alerts-url")
    source = find_metrics(url, token.strip(), key.strip())
    if not (once or as_json or sys.stdout.isatty()):
        raise CommandFailed("Standard output is not a terminal. Use --once or --json.")
    with httpx.Client() as client:
        reader = _Reader(client, source, alerts_url, interval)
        if as_json:
            print_json(reader.read())
        elif once:
            typer.echo(render(reader.read()))
        else:
            _draw(reader)


class _Reader:
    """Summarizes the time from one reading to the next."""

    def __init__(self, client: httpx.Client, source: MetricsSource, alerts_url: str | None, interval_s: float) -> None:
        """Raises CommandFailed."""
        self._client = client
        self._source = source
        self._alerts_url = alerts_url
        self._interval_s = interval_s
        self._last = source.scrape(client)

    def read(self) -> dict[str, Any]:
        """Wait for the interval and summarize it. Raises CommandFailed."""
        time.sleep(self._interval_s)
        before, self._last = self._last, self._source.scrape(self._client)
        return {
            "at": format_timestamp(datetime.now(UTC)),
            "gateway": self._source.name,
            **summarize(ScrapeInterval(before, self._last)),
            "alerts": None if self._alerts_url is None else read_alerts(self._client, self._alerts_url),
        }


def _draw(reader: _Reader) -> None:
    """Draw on the full screen until Ctrl-C, and keep trying while the gateway cannot be reached."""
    waiting = Text("Reading the metrics twice …")
    with suppress(KeyboardInterrupt), Live(waiting, console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                text = render(reader.read())
            except CommandFailed as error:
                text = f"{error} Trying again. Press Ctrl-C to stop."
            live.update(Text(text), refresh=True)
