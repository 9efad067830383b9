"""The counters that alerts and dashboards watch exist from the start: Prometheus misses the first event of others."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from api.app import create_app
from api.errors import BadRequest, HeadTooLarge, RequestTooSlow
from api.prediction.pipeline import SHED_REASONS
from api.rate_limits import limiter
from api.server.connections.refusals import TOO_MANY_CONNECTIONS
from api.settings import Settings
from model.confidence.abstention import AbstentionReason
from model.errors import MemoryFull
from tests.deploy.rule_files import FILES, read_rules
from tests.grafana.boards import all_expressions
from tests.grafana.promql import list_selectors

Labels = Mapping[str, str]
OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "=": lambda value, expected: value == expected,
    "!=": lambda value, expected: value != expected,
    "=~": lambda value, expected: re.fullmatch(expected, value) is not None,
    "!~": lambda value, expected: re.fullmatch(expected, value) is None,
}
ADDED_BY_PROMETHEUS = {"job", "instance"}
# Counters without a series on a fresh gateway that has no optional part, with the reason.
LATER = {
    "http_server_request_duration_seconds": "a series for each route and status would be thousands",
    "atalaya_predictions_total": "the models and their classes are known only when they predict",
    "atalaya_usage_predictions_total": "the callers are not known",
    "atalaya_usage_megapixels_total": "the callers are not known",
    "atalaya_labels_total": "the models that get true labels are not known",
    "atalaya_limit_fallbacks_total": "api.rate_limits.fallback creates it for a shared store",
    "atalaya_images_not_kept_total": "api.services.personal_data.keeper creates it for a store of images",
    "atalaya_model_loads_total": "api.services.aliases.following creates it for a model that is named by an alias",
    "atalaya_registry_pulls_total": "api.services.mirror.process creates it for an MLflow server",
    "atalaya_canary_comparisons_total": "api.services.canary.reports creates it for a trial",
    "atalaya_canary_shadow_total": "api.services.canary.reports creates it for a trial",
    "atalaya_canary_verdicts_total": "api.services.canary.reports creates it for a trial",
}
ABSENT_ON_SOME_MACHINES = {
    "atalaya_container_oom_kills_total",
    "atalaya_container_cpu_periods_total",
    "atalaya_container_cpu_throttled_periods_total",
}


@pytest.fixture
def fresh(settings: Settings) -> Mapping[str, list[Labels]]:
    """The labels of all series of each sample of a gateway that has just started."""
    registry = CollectorRegistry()
    series: dict[str, list[Labels]] = {}
    with TestClient(create_app(settings, registry=registry)):
        for sample in itertools.chain.from_iterable(family.samples for family in registry.collect()):
            series.setdefault(sample.name, []).append(sample.labels)
    return series


def list_values(fresh: Mapping[str, list[Labels]], sample: str, label: str) -> set[str]:
    return {labels[label] for labels in fresh[sample]}


def is_present(fresh: Mapping[str, list[Labels]], sample: str, matchers: Mapping[str, tuple[str, str]]) -> bool:
    """Whether a series matches, as Prometheus compares: an absent label is empty."""
    checked = {name: matcher for name, matcher in matchers.items() if name not in ADDED_BY_PROMETHEUS | {"model"}}
    return any(
        all(OPERATORS[operator](labels.get(name, ""), value) for name, (operator, value) in checked.items())
        for labels in fresh.get(sample, [])
    )


def test_counters_that_are_watched_exist_from_the_start(fresh: Mapping[str, list[Labels]]) -> None:
    """Each series that a rule or a panel computes an increase or rate of exists when a gateway starts."""
    expressions = [rule["expr"] for path in FILES for rule in read_rules(path)] + list(all_expressions())
    missing = {
        re.sub(r"_(bucket|count|sum)$", "", selector.metric)
        for expression in expressions
        for selector in list_selectors(expression)
        if selector.function in {"rate", "increase"} and not is_present(fresh, selector.metric, selector.matchers)
    }
    assert missing - ABSENT_ON_SOME_MACHINES == LATER.keys()


def test_every_value_has_a_series(fresh: Mapping[str, list[Labels]]) -> None:
    """Each rate limit, each reason to shed a request, each reason to abstain and each common stage has a series."""
    limits = {value for name, value in vars(limiter).items() if name.endswith("_LIMIT")}
    assert list_values(fresh, "atalaya_rate_limited_total", "limit") == {*limits, "quota"}
    assert list_values(fresh, "atalaya_shed_total", "reason") == set(SHED_REASONS.values())
    errors = (BadRequest, HeadTooLarge, RequestTooSlow, MemoryFull)
    refusals = {TOO_MANY_CONNECTIONS, *(error.code for error in errors)}
    assert list_values(fresh, "atalaya_connections_refused_total", "code") == refusals
    assert list_values(fresh, "atalaya_abstentions_total", "reason") == set(AbstentionReason)
    stages = list_values(fresh, "atalaya_prediction_stage_seconds_count", "stage")
    assert stages == {"decode", "queue", "infer", "commit"}
