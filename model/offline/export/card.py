"""The sections of a model card on calibration, abstention and prediction sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.confidence.abstention import AbstentionReason
from model.confidence.model import ConfidenceModel
from model.offline.fitting.thresholds import MAX_UNSURE, WANTED_ACCURACY


def describe_confidence(confidence: ConfidenceModel, results: Mapping[str, Any]) -> str:
    """Return the sections as Markdown. `results` has the members "confidence" and, if there is a gate, "gate"."""
    record = results["confidence"]
    sections = [_describe_calibration(confidence, record), _describe_abstention(confidence, record)]
    if "gate" in results:
        sections.append(_describe_gate(record["gate"], results["gate"]))
    sections.append(_describe_sets(record))
    return "\n".join(sections)


def _describe_calibration(confidence: ConfidenceModel, record: Mapping[str, Any]) -> str:
    images = record["validation_images"]
    errors = [("validation", images["clean"], record["calibration_error"]["clean"])]
    errors.append(("validation, changed", images["changed"], record["calibration_error"]["changed"]))
    if "test" in record:
        errors.append(("test", record["test"]["images"], record["test"]["calibration_error"]))
    rows = "\n".join(f"| {name} | {n} | {error['raw']:.4f} | {error['calibrated']:.4f} |" for name, n, error in errors)
    return f"""## Calibration
Temperature scaling (Guo et al., 2017) with the temperature {confidence.temperature:g}, which has the smallest log
loss on the validation images: one half of the weight is on the unchanged images, the other on changed ones (light,
colour, noise, blur, JPEG, ground resolution). The expected calibration error, in 15 bins of equal mass:

| images | number | raw | calibrated |
|---|---|---|---|
{rows}
"""


def _describe_abstention(confidence: ConfidenceModel, record: Mapping[str, Any]) -> str:
    low = record["low_confidence"]
    test = ""
    if "test" in record and record["test"]["abstention"] is not None:
        share = record["test"]["abstention"]["reasons"][AbstentionReason.LOW_CONFIDENCE]
        test = f", {share:.1%} of the test images"
    return f"""## Abstention
`low_confidence`: the largest calibrated probability is below {confidence.abstention.min_confidence:g}. This is the
smallest value at which {WANTED_ACCURACY:.0%} of the accepted changed validation images are correct, but no more than
{MAX_UNSURE:.0%} of the unchanged ones are rejected. It rejects {low["clean"]:.1%} of the unchanged validation
images{test}, and {low["changed"]:.1%} of the changed validation images; of the
changed ones that it accepts, {low["accuracy_of_accepted"]:.1%} are correct.
"""


def _describe_gate(fitted: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{n} {name}" for name, n in fitted["images"].items() if n)
    origin = f"\nOrigin of the images: {fitted['origin']}\n" if "origin" in fitted else ""
    held_out = "\n".join(f"- {name}: {share:.1%}" for name, share in fitted["refused"].items())
    rows = "\n".join(_format_group(group) for group in report["groups"])
    misses = "\n".join(_format_miss(miss) for miss in report["near_misses"])
    return f"""`not_an_aerial_image`: the score of a linear classifier of the pooled features is negative. It is a
logistic regression, fitted on
{counts}.
These counts include changed copies. Of the photographs, it uses two thirds of the categories. Documents, screenshots,
noise and plain surfaces are generated; some kinds of each are left out.
{origin}
Share classified as not aerial, of the images that determined the threshold and of scenes left out of a second fit:
{held_out}

Classified as not aerial by `atalaya evaluate --gate`, on photographs of other categories and on generated images of all
kinds (scenes of other sensors were used in the fit):

| images | should be rejected | number | rejected |
|---|---|---|---|
{rows}

Near misses: of the images that are not aerial, the gate accepts these kinds most often.

| images | kind | accepted |
|---|---|---|
{misses}
"""


def _format_group(group: Mapping[str, Any]) -> str:
    return f"| {group['name']} | {'no' if group['is_aerial'] else 'yes'} | {group['images']} | {group['share']:.1%} |"


def _format_miss(miss: Mapping[str, Any]) -> str:
    return f"| {miss['group']} | {miss['category']} | {miss['accepted']} of {miss['images']} |"


def _describe_sets(record: Mapping[str, Any]) -> str:
    table = ""
    if "test" in record:
        rows = "\n".join(_format_set(measured) for measured in record["test"]["sets"])
        table = f"""
| coverage | test images whose set contains the class | labels in a set, on average |
|---|---|---|
{rows}
"""
    count = record["validation_images"]["clean"]
    return f"""## Prediction sets
Split conformal prediction with the scores of {count} unchanged validation images: 1 minus the calibrated probability
of the class. The coverage holds for images that are exchangeable with these. Images in other light, of other sensors
and of other ground resolutions are not: their sets may contain the class less often.
{table}"""


def _format_set(measured: Mapping[str, float]) -> str:
    return f"| {measured['wanted']:g} | {measured['coverage']:.4f} | {measured['mean_size']:.2f} |"
