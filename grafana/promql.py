"""PromQL expressions over the gateway's metrics, and the queries that panels send to Prometheus."""

from __future__ import annotations

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models.dashboard import DataSourceRef

SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
JOB = 'job="atalaya"'
REQUESTS = "http_server_request_duration_seconds"


def rate(labels: str, metric: str, *selectors: str) -> str:
    """Events per second of a counter, summed by one or more labels."""
    return f"sum by ({labels}) (rate({metric}{{{','.join((JOB, *selectors))}}}[$__rate_interval]))"


def quantile(q: float, label: str, histogram: str) -> str:
    """The q-quantile of a histogram by label, or over all series when `label` is empty."""
    return f"histogram_quantile({q}, {rate(f'le, {label}' if label else 'le', f'{histogram}_bucket')})"


def share_of_requests(status: str) -> str:
    """The share, 0 to 1, of each route's requests with a status that matches the pattern `status`; 0 without any."""
    every = rate("http_route", f"{REQUESTS}_count")
    matching = rate("http_route", f"{REQUESTS}_count", f'http_response_status_code=~"{status}"')
    return f"({matching} or 0 * {every}) / {every}"


def or_none(expression: str, label: str) -> str:
    """The expression, or a line of zeros named "none" while it has no series and the gateway is up."""
    return f'{expression} or on () label_replace(0 * (up{{{JOB}}} == 1), "{label}", "none", "", "")'


def query(expression: str, legend: str, ref_id: str = "A") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref_id).datasource(SOURCE).range()
