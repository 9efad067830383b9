"""The model dashboard: which version serves, and whether its predictions can be trusted."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import build_dashboard, graph, heat_map, rows_of, stacked
from promql import (
    MODEL,
    busiest,
    increase,
    or_none,
    quantile,
    query,
    rate,
    select,
    share,
    table_query,
)

PREDICTIONS = "atalaya_predictions_total"
ABSTENTIONS = "atalaya_abstentions_total"
CONFIDENCE = "atalaya_prediction_confidence"
FINITE = 'le!="+Inf"'


def build_model() -> Dashboard:
    return build_dashboard(
        "model",
        "Which version of the model serves, and whether its predictions can be trusted.",
        [
            ("Versions", version_panels()),
            ("Predictions", prediction_panels()),
        ],
    )


def version_panels() -> Iterable[Builder[Panel]]:
    yield rows_of(
        "Served model",
        "Name, version, back end and SHA-256 of the model file, by instance.",
        table_query(f"topk(12, {select('atalaya_model_info')} == 1)"),
        ("instance", "model", "version", "backend", "digest"),
        width=12,
        empty="no instance is up",
    )
    yield stacked(
        graph(
            "Predictions by model",
            "Predictions per second by version. A version that takes over rises while the other one falls.",
            "ops",
            query(busiest(rate(PREDICTIONS, "model", MODEL), "model", PREDICTIONS), "{{model}}"),
        ).height(6)
    )
    loads = "atalaya_model_loads_total"
    yield graph(
        "Versions loaded, last hour",
        "Versions that an alias named: switched, or failed, so that the previous version still serves.",
        "short",
        query(or_none(increase(loads, "1h", "outcome"), "outcome"), "{{outcome}}"),
        width=8,
    )
    yield graph(
        "Models opened after the start, last hour",
        "From the prepared copy, or from the artefact because it was absent or rejected. None should be rejected.",
        "short",
        query(or_none(increase("atalaya_weights_loaded_total", "1h", "origin"), "origin"), "{{origin}}"),
        width=8,
    )
    yield graph(
        "Preparations, last hour",
        "Builds of the model's prepared copy, done or failed.",
        "short",
        query(or_none(increase("atalaya_preparations_total", "1h", "outcome"), "outcome"), "{{outcome}}"),
        width=8,
    )


def prediction_panels() -> Iterable[Builder[Panel]]:
    yield stacked(
        graph(
            "Predictions by class",
            "Predictions per second of the twelve most frequent classes. A sudden change may indicate another source.",
            "ops",
            query(busiest(rate(PREDICTIONS, "label", MODEL), "label", PREDICTIONS), "{{label}}"),
        )
    )
    yield heat_map(
        "Confidence by prediction",
        "Calibrated probability of the predicted class: each row is a range, and a dark cell has many predictions.",
        "percentunit",
        query(f"sum by (le) (increase({select(f'{CONFIDENCE}_bucket', FINITE)}[$__rate_interval]))", "{{le}}").format(
            PromQueryFormat.HEATMAP
        ),
    )
    yield graph(
        "Confidence of predictions",
        "Calibrated probability of the predicted class: median and 10th percentile. "
        "A drop indicates images unlike those the model was trained on.",
        "percentunit",
        query(quantile(0.5, CONFIDENCE), "median", "A"),
        query(quantile(0.1, CONFIDENCE), "10th percentile", "B"),
        width=8,
    ).max(1)
    yield graph(
        "Abstentions",
        "Predictions per second on which the model advises not to rely, by reason. Many images that are not aerial "
        "indicate a misconfigured client; more low confidence indicates a new region, season or sensor.",
        "ops",
        query(or_none(rate(ABSTENTIONS, "reason"), "reason"), "{{reason}}"),
        width=8,
    )
    yield graph(
        "Share of abstentions",
        "Abstentions as a share of the predictions whose confidence was measured.",
        "percentunit",
        query(share(rate(ABSTENTIONS), rate(f"{CONFIDENCE}_count")), "abstained"),
        width=8,
    ).max(1)
