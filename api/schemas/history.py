"""The responses of the caller's history of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from api.schemas.base import ResponseBody
from api.schemas.predictions import ImageResponse, LabelProbability, ModelResponse
from model.confidence.calibration import calibrate
from monitoring.ledger.entries import EntryWithPayload


class Proof(ResponseBody):
    """The prediction's place in the ledger; docs/ledger.md explains how to check it."""

    writer: str
    seq: int
    commitment: str = Field(description="SHA-256 over the salt and the recorded document")
    hash: str = Field(description="SHA-256 over the entry and the hash of the entry before it")


class PastLabel(ResponseBody):
    """A true label that was sent for a prediction, as recorded in the ledger."""

    id: str = Field(description="of the label's entry in the ledger, UUIDv7")
    at: str = Field(description="UTC, to the microsecond")
    label: str
    by: Literal["owner", "operator"] = Field(description="`owner` if the caller who got the prediction sent it")
    superseded: bool = Field(description="whether a later label counts instead")

    @classmethod
    def list_of(cls, labels: Sequence[EntryWithPayload]) -> list[PastLabel]:
        return [
            cls(
                id=item.entry.id,
                at=item.entry.at,
                label=facts["label"]["label"],
                by="owner" if facts["label"]["by"] == facts["principal"] else "operator",
                superseded=item is not labels[-1],
            )
            for item in labels
            for facts in (item.read_facts(),)
        ]


class PastPrediction(ResponseBody):
    """A recorded request. A rejected one has a `code`, and null for everything that it lacks."""

    id: str = Field(description="UUIDv7")
    at: str = Field(description="UTC, to the microsecond")
    status: int
    code: str | None
    count: int = Field(description="how many equal rejections this entry represents")
    label: str | None
    confidence: float | None = Field(description="calibrated probability of the label")
    abstained: bool | None
    reason: str | None = Field(description="why the model abstained")
    predictions: list[LabelProbability] = Field(description="all labels, most probable first")
    model: ModelResponse | None
    image: ImageResponse | None
    preprocessing: str | None
    timing: dict[str, float] = Field(description="milliseconds by stage")
    labels: list[PastLabel] = Field(
        description="the true labels that were sent for it, oldest first; the last one counts"
    )
    proof: Proof

    @classmethod
    def of(cls, recorded: EntryWithPayload, labels: Sequence[EntryWithPayload]) -> PastPrediction:
        facts, entry = recorded.read_facts(), recorded.entry
        output = facts["output"] or {"label": None, "confidence": None, "probabilities": {}}
        reason = output.get("abstention", {}).get("reason")
        return cls(
            id=entry.id,
            at=entry.at,
            status=facts["status"],
            code=facts["code"],
            count=facts["count"],
            label=output["label"],
            confidence=output["confidence"],
            abstained=None if facts["output"] is None else reason is not None,
            reason=reason,
            predictions=LabelProbability.list_of(_rank_labels(output)),
            model=ModelResponse(**facts["model"]) if facts["model"] else None,
            image=ImageResponse(**facts["image"]) if facts["image"] else None,
            preprocessing=facts["preprocessing"],
            timing={stage: microseconds / 1000 for stage, microseconds in facts["timing_us"].items()},
            labels=PastLabel.list_of(labels),
            proof=Proof(writer=entry.writer, seq=entry.seq, commitment=entry.commitment, hash=entry.hash),
        )


def _rank_labels(output: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the labels with their calibrated probabilities; entries of release 0.1.0 have no temperature."""
    ranked = sorted(output["probabilities"].items(), key=lambda pair: -pair[1])
    if not ranked or "temperature" not in output:
        return ranked
    probabilities = np.array([probability for _, probability in ranked], np.float32)
    calibrated = calibrate(probabilities, output["temperature"]).tolist()
    return [(label, probability) for (label, _), probability in zip(ranked, calibrated, strict=True)]


class PastPage(ResponseBody):
    entries: list[PastPrediction]
    next: str | None = Field(description="the `cursor` of the next, older page; null on the last one")
