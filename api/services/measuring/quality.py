"""The quality of the models on live traffic: results on demand, and metrics in the background."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from math import nan
from typing import TypeVar

from prometheus_client import Gauge
from sqlalchemy import Engine

from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.measuring.drift.metrics import measure_drift
from api.services.measuring.drift.references import Detectors
from api.services.measuring.drift.report import DriftReport, read_report
from api.services.measuring.drift.tracker import make_sum_updater
from api.services.measuring.drift.upkeep import remove_old
from api.services.measuring.refreshing import Refreshing
from api.settings import Settings
from model.quality.estimate import ConfidenceSums, estimate_accuracy
from model.quality.intervals import find_wilson_interval
from model.quality.results import LabelledPredictions, VersionQuality, compute_quality
from monitoring.errors import ModelNotRecorded
from monitoring.ledger.writing.thread import WriterThread
from monitoring.metrics import Metrics
from monitoring.quality.reader import PredictionSums, QualityReader
from storage.engine import open_blocking_engine
from storage.logins import DatabaseLogin

T = TypeVar("T")

WINDOW = timedelta(days=30)
"""The metrics cover the predictions of this period."""

_REFRESH_S = 15.0
_REMOVE_S = 3600.0
_WAIT_S = 5  # the longest wait for the database
_PAUSE = 3  # a pause takes this many times as long as the chunk before it, so the updater works a quarter of the time
_CHUNKS_FOR_REQUEST = 10  # a limit, so that no request waits for the sums of a whole ledger after an upgrade
_DONE = object()
_Version = tuple[str, str]  # model and version
_Series = tuple[Gauge, tuple[str, ...]]  # and its labels


def compute_versions(
    engine: Engine, model: str, version: str | None, since: datetime | None, until: datetime | None = None
) -> Sequence[VersionQuality]:
    """Return the results of each version of a model that has made predictions, or of one version.

    Both times must be at the beginning of an hour. Raises ModelNotRecorded, LedgerUnavailable.
    """
    reader = QualityReader(engine)
    sums = {each.version: each for each in reader.list_sums(since, model, until) if version in (None, each.version)}
    if not sums:
        raise ModelNotRecorded(model if version is None else f"{model}-v{version}")
    labelled = defaultdict[str, LabelledPredictions](LabelledPredictions)
    for label in reader.iterate_labels(since, model, version, until):
        labelled[label.version].add(label.predicted, label.confidence, label.label)
    return [compute_quality(name, labelled[name], _to_sums(each), each.abstained) for name, each in sums.items()]


def start_of_hour(moment: datetime) -> datetime:
    """Return the beginning of the hour. Sums are kept by hour, and labels have to cover the same hours."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _to_sums(sums: PredictionSums) -> ConfidenceSums:
    return ConfidenceSums(sums.predictions, sums.confidence, sums.variance)


class QualityService:
    """Uses two threads of its own, so that it never blocks the event loop.

    Reading all labels of a model takes seconds, so only that runs in the second thread.
    """

    def __init__(self, engine: Engine, metrics: Metrics, settings: Settings) -> None:
        self._engine = engine
        self._thread, self._labels_thread = WriterThread("quality"), WriterThread("quality_labels")
        self._detectors = Detectors(settings)
        self._updater = make_sum_updater(settings, engine, self._detectors)
        self._gauges = (metrics.live_accuracy, metrics.live_accuracy_lower, metrics.estimated_accuracy)
        self._metrics = metrics
        self._shown = set[_Series]()
        self._keep_days, self._remove_at = settings.ledger.keep_days, 0.0
        self._label_counts_key: object = None  # what the counts of labels depend on
        self._label_counts: Mapping[_Version, tuple[int, int]] = {}

    async def compute(self, model: str, version: str | None, since: datetime | None) -> Sequence[VersionQuality]:
        """Raises ModelNotRecorded, LedgerUnavailable."""
        await self._update_briefly()
        return await self._labels_thread.call(compute_versions, self._engine, model, version, since)

    async def report_drift(self) -> DriftReport:
        """Raises LedgerUnavailable."""
        await self._update_briefly()
        return await self._thread.call(read_report, self._engine, self._detectors)

    async def _update_briefly(self) -> None:
        chunks = self._updater.update()
        for _ in range(_CHUNKS_FOR_REQUEST):
            if await self._thread.call(next, chunks, _DONE) is _DONE:
                break

    async def refresh(self, activity: Activity) -> None:
        """Update the sums and the metrics. Raises LedgerUnavailable."""
        await self._process_chunks(self._updater.update(), activity)
        if time.monotonic() >= self._remove_at:
            await self._thread.call(remove_old, self._engine, self._keep_days)
            self._remove_at = time.monotonic() + _REMOVE_S
        values = await self._thread.call(self._measure)
        for gauge, labels in self._shown - values.keys():
            gauge.labels(*labels).set(nan)
        for (gauge, labels), value in values.items():
            gauge.labels(*labels).set(value)
        self._shown = set(values)

    def _measure(self) -> Mapping[_Series, float]:
        """Return the values of the gauges: drift, and the quality of every version with predictions in the window."""
        reader, since = QualityReader(self._engine), start_of_hour(datetime.now(UTC) - WINDOW)
        accuracy, lower, estimated = self._gauges
        values = dict[_Series, float](measure_drift(self._metrics, read_report(self._engine, self._detectors)))
        versions = reader.list_sums(since)
        counts = self._count_labels(reader, since, [(sums.model, sums.version) for sums in versions])
        for sums in versions:
            labels = (f"{sums.model}-v{sums.version}",)
            labelled, correct = counts[sums.model, sums.version]
            if labelled:
                interval = find_wilson_interval(correct / labelled, labelled)
                values[accuracy, labels], values[lower, labels] = interval.value, interval.lower
            estimate = estimate_accuracy(_to_sums(sums))
            if estimate is not None:
                values[estimated, labels] = estimate.value
        return values

    def _count_labels(
        self, reader: QualityReader, since: datetime, versions: Sequence[_Version]
    ) -> Mapping[_Version, tuple[int, int]]:
        """Return how many predictions of each version are labelled, and how many of those are correct.

        Counting 100,000 labels takes the database about a second, so they are counted only after a label was added and
        when the window moves, once an hour.
        """
        key = since, reader.find_label_ends(), versions
        if key != self._label_counts_key:
            self._label_counts = {version: reader.count_labels(since, *version) for version in versions}
            self._label_counts_key = key
        return self._label_counts

    async def _process_chunks(self, chunks: Iterator[None], activity: Activity) -> None:
        """Process all chunks in the thread, with a pause after each, which lasts longer while the process is idle."""
        started = time.monotonic()
        while await self._thread.call(next, chunks, _DONE) is not _DONE:
            await activity.sleep((time.monotonic() - started) * _PAUSE)
            started = time.monotonic()

    async def call(self, work: Callable[[Engine], T]) -> T:
        """Run other work on the ledger in the thread."""
        return await self._thread.call(work, self._engine)

    async def close_connections(self) -> None:
        """Close the connections; the next query opens one again."""
        await self._thread.call(self._engine.dispose)

    async def close(self) -> None:
        for thread in (self._labels_thread, self._thread):
            await asyncio.to_thread(thread.shutdown)
        self._engine.dispose()


@asynccontextmanager
async def open_quality_service(
    settings: Settings, metrics: Metrics, login: DatabaseLogin, activity: Activity
) -> AsyncIterator[QualityService]:
    """Keep the sums and the metrics up to date until the context ends."""
    engine = open_blocking_engine(settings.database_url.get_secret_value(), _WAIT_S, login, pre_ping=True)
    service = QualityService(engine, metrics, settings)
    activity.close_when_idle(service.close_connections)
    try:
        async with run_in_background(
            Refreshing("quality", partial(service.refresh, activity), _REFRESH_S).run(activity, _REFRESH_S)
        ):
            yield service
    finally:
        await service.close()
