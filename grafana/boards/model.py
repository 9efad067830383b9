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
    largest,
    occurred,
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
# Unlike the confidence, it also counts an image whose prediction is rejected (MODEL__ABSTAIN=refuse).
INFERENCES = ("atalaya_prediction_stage_seconds_count", "", 'stage="infer"')
CONFIDENCE = "atalaya_prediction_confidence"
FINITE = 'le!="+Inf"'


def build_model() -> Dashboard:
    return build_dashboard(
        "model",
        "Which version of the model serves, and whether its predictions can be trusted.",
        [
            ("Versions", version_panels()),
            ("Predictions", prediction_panels()),
            ("Accuracy", accuracy_panels()),
            ("Drift", drift_panels()),
            ("Candidate", candidate_panels()),
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
        "Versions that an alias pointed to: switched, or failed, so that the previous version still serves.",
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
    yield rows_of(
        "Aliases",
        "The version that each alias of the model in the registry points to.",
        table_query(f"topk(12, max by (model, alias, version) ({select('atalaya_model_alias')}) == 1)"),
        ("model", "alias", "version"),
        width=12,
        empty="the gateway has no registry",
    )
    yield graph(
        "Checks of the MLflow server",
        "Checks per second of the registry's MLflow server: nothing changed, aliases moved, or failed.",
        "ops",
        query(or_none(rate("atalaya_registry_pulls_total", "outcome"), "outcome"), "{{outcome}}"),
    ).height(6)


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
        "Predictions per second on which the model abstains, by reason. Many images that are not aerial "
        "indicate a misconfigured client; more low confidence indicates a new region, season or sensor.",
        "ops",
        query(or_none(occurred(rate(ABSTENTIONS, "reason"), "reason", ABSTENTIONS), "reason"), "{{reason}}"),
        width=8,
    )
    yield graph(
        "Share of abstentions",
        "Abstentions as a share of the images that the model has seen, as in the alert AtalayaAbstentionSurge.",
        "percentunit",
        query(share(rate(ABSTENTIONS), rate(*INFERENCES)), "abstained"),
        width=8,
    ).max(1)


def accuracy_panels() -> Iterable[Builder[Panel]]:
    labels = "atalaya_labels_total"
    yield graph(
        "Accuracy on live traffic",
        "Share of correct predictions among those with a true label, its lower bound (95 %), and the accuracy that the "
        "confidence of all predictions estimates. Empty without labels.",
        "percentunit",
        *(
            query(largest(f"max by (model) ({select(gauge, MODEL)})", "model", gauge, most=4), legend, ref_id)
            for gauge, legend, ref_id in (
                ("atalaya_live_accuracy", "{{model}}", "A"),
                ("atalaya_live_accuracy_lower", "{{model}} at least", "B"),
                ("atalaya_estimated_accuracy", "{{model}} estimated", "C"),
            )
        ),
        width=8,
    ).max(1)
    yield stacked(
        graph(
            "True labels received, last hour",
            "Labels by whether the prediction was correct. Accuracy is known only as well as there are labels.",
            "short",
            query(or_none(increase(labels, "1h", "correct", MODEL), "correct"), "correct: {{correct}}"),
            width=8,
        )
    )
    evaluation = "atalaya_evaluation_accuracy"
    yield graph(
        "Accuracy on the validation set",
        "Share of correct predictions in the last evaluation of the served model, and its lower bound (95 %). "
        "Empty until atalaya evaluate --served has run.",
        "percentunit",
        query(largest(f"max by (model) ({select(evaluation, MODEL)})", "model", evaluation, most=4), "{{model}}", "A"),
        query(
            largest(f"max by (model) ({select(f'{evaluation}_lower', MODEL)})", "model", evaluation, most=4),
            "{{model}} at least",
            "B",
        ),
        width=8,
    ).max(1)


def drift_panels() -> Iterable[Builder[Panel]]:
    yield graph(
        "Callers that differ",
        "Callers whose images or predictions differ from those that a model was measured on, by metric. "
        "`atalaya drift` says who, how and since when.",
        "short",
        query(
            of_two_models(f"max by (model, metric) ({select('atalaya_drift_callers', MODEL)})"), "{{model}} {{metric}}"
        ),
    )
    yield graph(
        "Recent predictions compared with the reference",
        "Mean of about the last 100 predictions of all callers, divided by that of the reference: 1 is no difference.",
        "short",
        query(
            of_two_models(
                f"max by (model, metric) ({select('atalaya_drift_recent', MODEL)}) "
                f"/ max by (model, metric) ({select('atalaya_drift_reference', MODEL)})"
            ),
            "{{model}} {{metric}}",
        ),
    )


def of_two_models(expression: str) -> str:
    """The expression for two models: more are seldom in service within a time range, and each has six metrics."""
    return largest(expression, "model", "atalaya_drift_recent", most=2)


def candidate_panels() -> Iterable[Builder[Panel]]:
    comparisons, evidence = "atalaya_canary_comparisons_total", "atalaya_canary_log_e"
    worse = rate(comparisons, "metric", 'result="worse"')
    yield graph(
        "Comparisons that the candidate lost",
        "Share of comparisons with the model in production: it disagreed, failed, was slower, or was wrong.",
        "percentunit",
        query(share(worse, rate(comparisons, "metric")), "{{metric}}"),
    ).max(1)
    yield graph(
        "Evidence on the candidate",
        "Natural logarithm of the e-values for taking it back and for promoting it. At 20 to 1 it is 3.",
        "short",
        query(f"max by (metric, direction) ({select(evidence)})", "{{metric}}: {{direction}}"),
    ).min(-10)
    yield graph(
        "Images for the other model",
        "Images queued for the model of the trial that did not respond; dropped while there is no spare capacity.",
        "ops",
        query(or_none(rate("atalaya_canary_shadow_total", "outcome"), "outcome"), "{{outcome}}"),
    )
    yield graph(
        "Verdicts, last day",
        "A candidate was taken back, or promoted. The log has the reasons.",
        "short",
        query(or_none(increase("atalaya_canary_verdicts_total", "1d", "verdict"), "verdict"), "{{verdict}}"),
    )
