"""A year of traffic, written through the ledger's own writer with explicit times in the past.

Four seasons of brightness; from July on a second sensor, whose images are softer and of another size; in autumn a
caller who sends photographs; in May another version of ONNX Runtime; from mid-August the second of two models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Engine

from api.settings import Settings
from model.drift.files import describe_reference_file
from model.drift.metrics import Observations, measure
from model.drift.reference import build_reference
from monitoring.chains.ids import MonotonicIds
from monitoring.chains.signing import Signer
from monitoring.chains.timestamps import format_timestamp
from monitoring.cost.resources import HourResources
from monitoring.cost.store import CostStore
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft, EntryKind, build_event
from monitoring.ledger.writing.store import LedgerStore
from storage.transactions import WRITING
from tests.model.registry.versions import MODEL

YEAR = 2025
SECOND_MODEL_FROM, UPDATE_FROM = date(YEAR, 8, 15), date(YEAR, 5, 10)
SENSOR_FROM, PHOTOGRAPHS_FROM = date(YEAR, 7, 1), date(YEAR, 10, 1)
OUTAGE = date(YEAR, 2, 11)
"""The day on which the ledger was unavailable for half of the requests."""

_WORKING_HOURS = range(7, 19)
_LABELS = ("forest", "river", "harbor")
_ACCURACY = {"1.0": 0.93, "1.1": 0.97}
_LABELLED = 0.15
_BATCH = 500
_DIGEST = "ab12" * 16


@dataclass(frozen=True, slots=True)
class Callers:
    """The subjects of the callers."""

    maps: str
    sensor: str
    photographs: str


def build_year_reference() -> dict[str, Any]:
    """Return a file with the reference for drift: the images of the caller `maps` over the whole year."""
    generator, first = np.random.default_rng(2), date(YEAR, 1, 1)
    facts = [_build_prediction(first + timedelta(days=number), "maps", generator) for number in range(365)]
    measures = [
        measure(
            confidence=each["output"]["confidence"],
            gate_score=each["output"]["gate_score"],
            brightness=each["image"]["brightness"],
            sharpness=each["image"]["sharpness"],
            width=each["image"]["width"],
            height=each["image"]["height"],
        )
        for each in facts
    ]
    classes = np.array([each["output"]["index"] for each in facts])
    reference = build_reference(Observations(classes, np.array(measures), np.arange(365.0)), _LABELS)
    return describe_reference_file(reference, MODEL, _DIGEST)


class Year:
    """Writes the entries, labels and measured resources day by day."""

    def __init__(self, settings: Settings, engine: Engine, callers: Callers, *, per_hour: int = 1) -> None:
        self._engine = engine
        self._callers = callers
        self._per_hour = per_hour
        self._now = datetime(YEAR, 1, 1, tzinfo=UTC)
        self._generator = np.random.default_rng(1)
        self._ids = MonotonicIds(lambda: round(self._now.timestamp() * 1000))
        self._store = LedgerStore(engine.execution_options(**WRITING), Signer(settings.ledger_key()), lambda: self._now)
        self._chain = Chain(self._ids.new())
        self._store.open_chain(self._chain.writer)

    def play(self, until: date) -> None:
        """Write everything from the last day written to the day before `until`."""
        drafts, resources = list[EntryDraft](), list[HourResources]()
        while self._now.date() < until:
            day = self._now.date()
            for hour in _WORKING_HOURS:
                drafts += self._draft_hour(day, hour)
            resources += _measure_day(day)
            self._now = datetime.combine(day + timedelta(days=1), time(), UTC)
        for start in range(0, len(drafts), _BATCH):
            linked = self._chain.link(drafts[start : start + _BATCH])
            with self._store.batch_transaction() as connection:
                self._store.append(connection, linked, self._chain)
            self._chain.advance(linked)
        self._store.write_checkpoint()
        CostStore(self._engine).add_resources(resources)

    def close(self) -> None:
        self._store.close()

    def _draft_hour(self, day: date, hour: int) -> Iterator[EntryDraft]:
        self._now = datetime.combine(day, time(hour, 30), UTC)
        at = format_timestamp(self._now)
        for facts in _build_hour(day, self._callers, self._generator, self._per_hour):
            prediction = self._ids.new()
            yield EntryDraft(prediction, at, facts)
            if facts["output"] is not None and self._generator.random() < _LABELLED:
                yield EntryDraft(self._ids.new(), at, _build_label(facts, prediction, at, self._generator))


def _build_hour(day: date, callers: Callers, generator: np.random.Generator, per_hour: int) -> Iterator[dict[str, Any]]:
    for _ in range(per_hour):
        if day == OUTAGE:
            yield _build_refusal(callers.maps)
        yield _build_prediction(day, callers.maps, generator)
    if day >= SENSOR_FROM:
        yield _build_prediction(day, callers.sensor, generator, sharpness=4.0, width=1000)
    if day >= PHOTOGRAPHS_FROM:
        yield _build_prediction(day, callers.photographs, generator, gate_score=-3.0, width=640)


def _build_prediction(
    day: date,
    principal: str,
    generator: np.random.Generator,
    *,
    sharpness: float = 12.0,
    gate_score: float = 3.0,
    width: int = 256,
) -> dict[str, Any]:
    version = "1.1" if day >= SECOND_MODEL_FROM else "1.0"
    season = -math.cos(2 * math.pi * day.timetuple().tm_yday / 365)  # -1 at New Year, 1 in the middle of the year
    confidence = float(np.clip(generator.normal(_ACCURACY[version], 0.02), 0.5, 0.999))
    score = float(generator.normal(gate_score, 0.5))
    label = _LABELS[generator.integers(len(_LABELS))]
    return {
        **_build_origin(principal, 200, None),
        "model": {"name": MODEL, "version": version, "digest": _DIGEST, "backend": "onnx"},
        "preprocessing": "rgb",
        "runtime": {
            "numpy": "2.4.0",
            "onnxruntime": "1.27.0" if day >= UPDATE_FROM else "1.26.0",
            "pillow": "12.3.0",
            "machine": "x86_64",
            "processor": "test",
        },
        "image": {
            "sha256": f"{generator.integers(2**62):064x}",
            "format": "JPEG",
            "width": width,
            "height": width,
            "bytes": 20_000,
            "bit_depth": 8,
            "scaling": None,
            "ground_resolution_m": None,
            "brightness": round(float(np.clip(generator.normal(110 + 35 * season, 8), 0, 255)), 2),
            "sharpness": round(float(generator.normal(sharpness, 1)), 2),
        },
        "output": {
            "index": _LABELS.index(label),
            "label": label,
            "confidence": confidence,
            "probabilities": {label: confidence, "other": 1 - confidence},
            "temperature": 1.0,
            "gate_score": score,
            "abstention": {"policy": "mark", "reason": "not_an_aerial_image" if score < 0 else None},
        },
        "timing_us": {"queue": 200, "decode": 2000, "infer": round(float(generator.normal(18_000, 500)))},
    }


def _build_refusal(principal: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("model", "preprocessing", "runtime", "image", "output"))
    return {**_build_origin(principal, 503, "ledger_unavailable"), **nothing, "timing_us": {}}


def _build_origin(principal: str, status: int, code: str | None) -> dict[str, Any]:
    origin = {"v": 2, "request_id": "r", "route": "/v1/predictions", "principal": principal, "key": None}
    return {**origin, "status": status, "code": code, "count": 1}


def _build_label(facts: dict[str, Any], prediction: str, at: str, generator: np.random.Generator) -> dict[str, Any]:
    output, model = facts["output"], facts["model"]
    is_correct = generator.random() < _ACCURACY[model["version"]]
    details = {
        "prediction": prediction,
        "predicted_at": at,
        "predicted": output["label"],
        "confidence": output["confidence"],
        "abstained": output["abstention"]["reason"] is not None,
        "label": output["label"] if is_correct else "airplane",
        "by": facts["principal"],
        "key": None,
        "request_id": "r",
    }
    model_name = {"name": model["name"], "version": model["version"]}
    return build_event(EntryKind.LABEL, facts["principal"], details, model_name)


def _measure_day(day: date) -> Iterator[HourResources]:
    """Yield each hour of a gateway that never sleeps: 0.25 GB of memory, and more processor time while it works."""
    for hour in range(24):
        processor_s = 36.0 if hour in _WORKING_HOURS else 6.0
        yield HourResources(f"{day:%Y-%m-%d}T{hour:02}", processor_s, 0.25 * 3600, 500_000)
