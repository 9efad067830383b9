"""The fifteen Prometheus rules of Grafana's dashboard-linter, under the linter's names. Its other two are for Loki."""

from __future__ import annotations

import re

import pytest

from tests.grafana.boards import NAMES, read_dashboard, read_panels
from tests.grafana.promql import find_selectors, templates

SOURCE = "${datasource}"
# The ids of Grafana's units that the dashboards use.
UNITS = {
    *("none", "string", "short", "percentunit", "bytes", "s", "dtdurations", "dateTimeFromNow"),
    *("cps", "ops", "reqps"),
}


def read_expressions(name: str) -> list[str]:
    return [target["expr"] for panel in read_panels(name) for target in panel["targets"]]


@pytest.mark.parametrize("name", NAMES)
def test_template_datasource_rule(name: str) -> None:
    """The data source is a variable, which has the name and the label that Grafana's mixins use."""
    source = templates(read_dashboard(name))["datasource"]
    assert (source["type"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")


@pytest.mark.parametrize("variable", ["job", "instance"])
@pytest.mark.parametrize("name", NAMES)
def test_template_job_and_instance_rules(name: str, variable: str) -> None:
    """`job` and `instance` are multi-value variables of the data source, whose value for all is `.+`."""
    found = templates(read_dashboard(name))[variable]
    assert found["type"] == "query"
    assert found["datasource"]["uid"] == SOURCE
    assert found["label"] == variable.title()
    assert found["multi"] is True
    assert found["allValue"] == ".+"


@pytest.mark.parametrize("name", NAMES)
def test_template_label_promql_rule(name: str) -> None:
    """The values of a variable come from a function that Grafana has for Prometheus."""
    variables = templates(read_dashboard(name)).values()
    queries = [variable["query"] for variable in variables if variable["type"] == "query"]
    assert len(queries) == 3
    for query in queries:
        call = re.fullmatch(r"label_values\((.+), \w+\)", query)
        assert call
        find_selectors(call[1])


@pytest.mark.parametrize("name", NAMES)
def test_template_on_time_change_reload_rule(name: str) -> None:
    """The values of variables are loaded again when the time range changes."""
    variables = templates(read_dashboard(name)).values()
    assert {variable["refresh"] for variable in variables if variable["type"] == "query"} == {2}


@pytest.mark.parametrize("name", NAMES)
def test_panel_datasource_rule(name: str) -> None:
    """A panel and its queries use the data source that the variable names."""
    for panel in read_panels(name):
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert {(source["type"], source["uid"]) for source in sources} == {("prometheus", SOURCE)}, panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_panel_title_description_rule(name: str) -> None:
    """A panel has a title, and a description in sentences."""
    for panel in read_panels(name):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_panel_units_rule(name: str) -> None:
    """A panel has a unit that Grafana knows."""
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in read_panels(name)} <= UNITS


@pytest.mark.parametrize("name", NAMES)
def test_panel_no_targets_rule(name: str) -> None:
    """A panel has at least one query."""
    assert all(panel["targets"] for panel in read_panels(name))


@pytest.mark.parametrize("name", NAMES)
def test_target_promql_rule(name: str) -> None:
    """A query consists of known functions and of selectors with matchers. An e2e test runs each in Prometheus."""
    for expression in read_expressions(name):
        assert find_selectors(expression)


@pytest.mark.parametrize("name", NAMES)
def test_target_rate_interval_rule(name: str) -> None:
    """Each rate is over $__rate_interval."""
    for expression in read_expressions(name):
        rates = [selector for selector in find_selectors(expression) if selector.function in ("rate", "irate")]
        assert {selector.range for selector in rates} <= {"$__rate_interval"}, expression
        assert len(rates) == len(re.findall(r"\bi?rate\(", expression))


@pytest.mark.parametrize("label", ["job", "instance"])
@pytest.mark.parametrize("name", NAMES)
def test_target_job_and_instance_rules(name: str, label: str) -> None:
    """Each selector is filtered by the variables `job` and `instance`."""
    for expression in read_expressions(name):
        matchers = [selector.matchers.get(label) for selector in find_selectors(expression)]
        assert set(matchers) == {("=~", f"${label}")}, expression


@pytest.mark.parametrize("name", NAMES)
def test_target_counter_agg_rule(name: str) -> None:
    """A counter is read through rate, irate or increase."""
    for expression in read_expressions(name):
        counters = [each for each in find_selectors(expression) if each.metric.endswith("_total")]
        assert {each.function for each in counters} <= {"rate", "irate", "increase"}, expression


@pytest.mark.parametrize("name", NAMES)
def test_uneditable_dashboard_rule(name: str) -> None:
    """A dashboard cannot be edited in Grafana."""
    assert read_dashboard(name)["editable"] is False
