"""What `atalaya top` reads: the metrics of a gateway, and the alerts of Prometheus or Alertmanager."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx
from msgspec import Struct

from api.commands.gateway.failures import check_url, explain_failure
from api.commands.gateway.running import find_gateway
from api.commands.gateway.top.samples import Scrape
from api.errors import CommandFailed
from api.server.listeners import local_url
from api.settings import load_local_settings

_TIMEOUT_S = 5.0
# Prometheus' path, then Alertmanager's.
_ALERT_PATHS = ("/api/v1/alerts", "/api/v2/alerts")


class MetricsSource(Struct, frozen=True):
    """`url` is the address of the metrics; `name` names the gateway for people."""

    name: str
    url: str
    headers: Mapping[str, str]

    def scrape(self, client: httpx.Client) -> Scrape:
        """Raises CommandFailed."""
        response = _get(client, self.url, self.headers)
        if response.status_code == 401 and not self.headers:
            raise CommandFailed(
                f"{self.name} shows its metrics only to authenticated callers. Add --key or --token with a credential "
                "that has the scope metrics:read, or set METRICS_PORT on this machine."
            )
        if response.status_code in (401, 403):
            raise CommandFailed(f"{self.name} rejected the credential. Use one with the scope metrics:read.")
        try:
            response.raise_for_status()
            return Scrape.parse(response.text, time.time())
        except (httpx.HTTPStatusError, ValueError, KeyError):
            raise CommandFailed(f"{self.url} has no metrics: it sent HTTP {response.status_code}.") from None


def find_metrics(url: str | None, token: str, key: str) -> MetricsSource:
    """Return where to read the metrics of the gateway at `url`, or of this home's gateway.

    Without `url` and credentials, METRICS_PORT is read if it is set. Raises BadParameter, SettingsError.
    """
    settings = load_local_settings()
    if url is None and not token and not key and settings.metrics_port is not None:
        name = local_url("http", settings.host, settings.metrics_port)
        return MetricsSource(name, f"{name}/metrics", {})
    if url is None:
        running = find_gateway(settings.port)
        url = running.url if running else local_url("http", settings.host, settings.port)
    url = url.rstrip("/")
    check_url(url)
    headers = {"X-API-Key": key} if key else {"Authorization": f"Bearer {token}"} if token else {}
    return MetricsSource(url, f"{url}/metrics", headers)


def read_alerts(client: httpx.Client, url: str) -> list[dict[str, Any]]:
    """Return the firing alerts of a Prometheus or an Alertmanager, the newest first. Raises CommandFailed."""
    for path in _ALERT_PATHS:
        response = _get(client, f"{url.rstrip('/')}{path}", {})
        if response.is_success:
            try:
                return _parse_alerts(response.json())
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                break
    raise CommandFailed(f"{url} is neither a Prometheus nor an Alertmanager: it has no list of alerts.")


def _parse_alerts(document: Any) -> list[dict[str, Any]]:
    """Raises KeyError, TypeError, AttributeError for a document that is neither Prometheus' nor Alertmanager's."""
    alerts = document["data"]["alerts"] if isinstance(document, dict) else document
    firing = []
    for alert in alerts:
        status = alert.get("status", {})
        state = status["state"] if status else alert["state"]
        if state in ("firing", "active"):
            labels, annotations = alert["labels"], alert.get("annotations", {})
            firing.append(
                {
                    "name": labels["alertname"],
                    "severity": labels.get("severity", ""),
                    "since": alert.get("activeAt") or alert.get("startsAt") or "",
                    "summary": annotations.get("summary", ""),
                }
            )
    return sorted(firing, key=lambda each: each["since"], reverse=True)


def _get(client: httpx.Client, url: str, headers: Mapping[str, str]) -> httpx.Response:
    """Raises CommandFailed."""
    try:
        return client.get(url, headers=headers, timeout=_TIMEOUT_S)
    except httpx.RequestError as error:
        raise CommandFailed(f"{url} cannot be reached: {explain_failure(error)}.") from None
    except httpx.InvalidURL as error:
        raise CommandFailed(f"{url} is not a URL: {error}.") from None
