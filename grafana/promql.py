"""PromQL expressions over the gateway's metrics, and the queries that panels send to Prometheus.

Every selector has the matchers of the dashboard's variables. A gateway that is down has no value, never 0.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
TARGET = 'job=~"$job",instance=~"$instance"'
MODEL = 'model=~"$model"'
REQUESTS = "http_server_request_duration_seconds"
SERVED = 'http_route!~"/livez|/readyz|/metrics|/v2/health/.+"'  # all requests but probes and scrapes
# GET /v1/predictions lists predictions.
PREDICTION_REQUESTS = 'http_request_method="POST",http_route=~"/predict-land-use/?|/v1/predictions|/v2/models/.+/infer"'
MAX_SERIES = 12
RATE_WINDOW = "$__rate_interval"


def select(metric: str, *matchers: str) -> str:
    """The series of a metric that the dashboard's variables and `matchers` select."""
    return f"{metric}{{{','.join((TARGET, *matchers))}}}"


def total(expression: str, by: str = "") -> str:
    """The sum over all series, or the sums by one or more labels."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def rate(metric: str, by: str = "", *matchers: str) -> str:
    """Events per second of a counter."""
    return total(f"rate({select(metric, *matchers)}[{RATE_WINDOW}])", by)


def increase(metric: str, window: str, by: str = "", *matchers: str) -> str:
    """Events of a counter in a fixed window, for instances that are up: the window also covers stopped instances."""
    selected = select(metric, *matchers)
    return total(f"increase({selected}[{window}]) and on (job, instance) {select('up')} == 1", by)


def quantile(q: float, histogram: str, by: str = "", *matchers: str) -> str:
    """The q-quantile of a histogram."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', f'le, {by}' if by else 'le', *matchers)})"


def up_zero() -> str:
    """0 while at least one instance is up, otherwise no value."""
    return f"0 * max({select('up')} == 1)"


def or_zero(expression: str) -> str:
    """An expression without labels, or 0 while it has no value and the gateway is up."""
    return f"{expression} or {up_zero()}"


def or_none(expression: str, label: str) -> str:
    """The expression, or a line of zeros named "none" while it has no series and the gateway is up."""
    return f'{expression} or on () label_replace({up_zero()}, "{label}", "none", "", "")'


def busiest(expression: str, label: str, counter: str, most: int = MAX_SERIES) -> str:
    """The expression for the label values with the most events in the time range, which are the same at each step."""
    return f"{expression} and on ({label}) topk({most}, {_count_events(label, counter)})"


def occurred(expression: str, label: str, counter: str, most: int = MAX_SERIES - 1) -> str:
    """The expression for the label values that have events in the time range, the most frequent ones.

    A gateway exposes many counters from its start; a line for each that stays at 0 would hide the others.
    """
    return f"{expression} and on ({label}) topk({most}, {_count_events(label, counter)} > 0)"


def _count_events(label: str, counter: str) -> str:
    """The number of events in the time range, by label; it does not depend on the step."""
    return total(f"increase({select(counter)}[$__range] @ end())", label)


def largest(expression: str, label: str, gauge: str, most: int = MAX_SERIES) -> str:
    """The expression for the label values with the highest gauge in the time range, which are the same at each step."""
    ranking = f"max by ({label}) (max_over_time({select(gauge)}[$__range] @ end()))"
    return f"{expression} and on ({label}) topk({most}, {ranking})"


def instances(expression: str, most: int = MAX_SERIES) -> str:
    """The expression for the instances that use the most memory. It must have the label `instance`."""
    return largest(expression, "instance", "process_resident_memory_bytes", most)


def memory_share() -> str:
    """The share of its memory limit that an instance uses, as in the alert AtalayaMemoryNearLimit."""
    used = f"({select('atalaya_container_memory_working_set_bytes')} or {select('process_resident_memory_bytes')})"
    return f"{used} / on (job, instance) {select('atalaya_memory_limit_bytes')}"


def share(part: str, whole: str) -> str:
    """The share, 0 to 1, of one sum in another with the same labels; 0 where only the part has no series."""
    return f"({part} or 0 * {whole}) / {whole}"


def query(expression: str, legend: str, ref_id: str = "A") -> prometheus.Dataquery:
    """A query over the time range of the dashboard."""
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref_id).datasource(SOURCE).range()


def table_query(expression: str, ref_id: str = "A") -> prometheus.Dataquery:
    """An instant query, with its result as rows of a table."""
    return query(expression, "", ref_id).instant().format(PromQueryFormat.TABLE)
