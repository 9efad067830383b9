"""The variables at the top of each dashboard: data source, job, instance and model."""

from __future__ import annotations

from collections.abc import Iterator

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import VariableOption, VariableRefresh, VariableSort
from promql import SOURCE, TARGET

ALL = VariableOption(selected=True, text="All", value="$__all")


def build_variables() -> Iterator[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    yield dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    # Without "All", which would select every job of the Prometheus server: other jobs export process_* too.
    yield values_of("job", 'label_values(up{job=~"atalaya.*"}, job)')
    for name, query in (
        ("instance", 'label_values(up{job=~"$job"}, instance)'),
        ("model", f"label_values(atalaya_predictions_total{{{TARGET}}}, model)"),
    ):
        yield values_of(name, query).include_all(True).current(ALL)


def values_of(name: str, query: str) -> dashboard.QueryVariable:
    """A choice of one or more values of a label."""
    return (
        dashboard.QueryVariable(name)
        .label(name.title())
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .all_value(".+")
    )
