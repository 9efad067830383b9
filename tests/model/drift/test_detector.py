"""The drift detector's alarms about one caller's predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from model.backends.onnx import OnnxBackend
from model.drift.detector import Alarm, AllClear, DriftDetector
from model.drift.metrics import MEASURES, Metric, Observations
from model.drift.reference import Reference
from model.drift.state import DriftState
from model.offline.fitting.drift_reference import observe_predictions
from model.serving.prediction import predict_image
from tests.model.drift.features import FILE
from tests.support.paths import ARTEFACT, SAMPLES

Features = Mapping[str, Observations]
MINUTE = 60.0


def draw(features: Features, seed: int, *parts: tuple[str, int]) -> Observations:
    """Draw images from groups, one group after the other, with one minute between two images."""
    generator = np.random.default_rng(seed)
    drawn = [features[group].select(generator.integers(0, len(features[group]), n).tolist()) for group, n in parts]
    classes = np.concatenate([each.classes for each in drawn])
    times = MINUTE * np.arange(1, len(classes) + 1, dtype=np.float64)
    return Observations(classes, np.concatenate([each.measures for each in drawn]), times)


def update(detector: DriftDetector, state: DriftState, observations: Observations) -> list[Alarm | AllClear]:
    return detector.update(state, observations)


def list_alarms(events: Sequence[Alarm | AllClear], metric: Metric) -> list[Alarm]:
    return [event for event in events if isinstance(event, Alarm) and event.metric is metric]


def test_a_darker_camera_is_found_and_dated(detector: DriftDetector, features: Features) -> None:
    """The first alarm reports a lower brightness since about the first dark image; later alarms are not new."""
    images = draw(features, 1, ("test", 400), ("test, brightness x0.6", 400))
    state = detector.begin()
    first, *later = list_alarms(update(detector, state, images), Metric.BRIGHTNESS)
    assert (first.change, first.is_new) == ("lower", True)
    assert 400 * MINUTE < first.at <= 600 * MINUTE
    assert first.since == pytest.approx(400 * MINUTE, abs=20 * MINUTE)
    assert later
    assert not any(each.is_new for each in later)
    reference, recent = detector.compare(state, Metric.BRIGHTNESS, first.change)
    assert (reference or 0) > 1.5 * (recent or 0)


def test_a_drift_ends_after_500_normal_predictions(detector: DriftDetector, features: Features) -> None:
    """A drift ends after 500 predictions without an alarm; the next drift is reported as new."""
    dark = ("test, brightness x0.6", 200)
    events = update(detector, detector.begin(), draw(features, 2, dark, ("test", 1500), dark))
    brightness = [event for event in events if event.metric is Metric.BRIGHTNESS]
    ends = [event.at for event in brightness if isinstance(event, AllClear)]
    new = [event.at for event in brightness if isinstance(event, Alarm) and event.is_new]
    last = max(event.at for event in brightness if isinstance(event, Alarm) and event.at < ends[0])
    assert ends == [last + 500 * MINUTE]
    assert len(new) == 2
    assert new[1] > ends[0]


def test_a_class_that_becomes_frequent_is_named(detector: DriftDetector, features: Features) -> None:
    """For scenes of another sensor, most of them forests, the alarm names the class "forest" as too frequent."""
    events = update(detector, detector.begin(), draw(features, 3, ("another sensor", 100)))
    alarm = list_alarms(events, Metric.CLASS_MIX)[0]
    assert alarm.change == "forest"


@pytest.mark.parametrize("share", [0.9, 0.98, 1.0])
def test_a_dominant_class_is_no_drift(share: float) -> None:
    """Of 100 callers with the reference's own share of a class, at most one is reported within 5,000 predictions."""
    detector = DriftDetector(Reference(1000, ("land", "sea"), (share, 1 - share), {}))
    generator, measures = np.random.default_rng(9), np.full((5000, len(MEASURES)), np.nan)
    callers = [
        Observations((generator.random(5000) >= share).astype(np.int64), measures, np.arange(5000.0))
        for _ in range(100)
    ]
    assert sum(bool(update(detector, detector.begin(), each)) for each in callers) <= 1


def test_a_rare_class_that_becomes_frequent_is_found() -> None:
    """If the share of a class rises from 2 % to 40 %, an alarm names the class."""
    detector = DriftDetector(Reference(1000, ("land", "sea"), (0.98, 0.02), {}))
    classes = (np.random.default_rng(9).random(300) < 0.4).astype(np.int64)
    observations = Observations(classes, np.full((300, len(MEASURES)), np.nan), np.arange(300.0))
    alarm = list_alarms(update(detector, detector.begin(), observations), Metric.CLASS_MIX)[0]
    assert alarm.change == "sea"


def test_unknown_values_say_nothing(detector: DriftDetector, features: Features) -> None:
    """Predictions of unknown classes, without brightness, as an earlier release recorded them, cause no alarm."""
    normal = draw(features, 4, ("test", 1000))
    measures = np.full_like(normal.measures, np.nan)
    state = detector.begin()
    assert update(detector, state, Observations(np.full(1000, -1), measures, normal.times)) == []
    assert (state.wealth <= 0).all()
    assert detector.compare(state, Metric.BRIGHTNESS, "lower")[1] is None


@pytest.mark.parametrize("part", [1, 7, 150])
def test_parts_make_the_same_as_the_whole(detector: DriftDetector, features: Features, part: int) -> None:
    """Updates in parts of any size, with the state encoded in between, find the same events at the same predictions."""
    images = draw(features, 5, ("test", 150), ("test, brightness x0.6", 150))
    whole = update(detector, detector.begin(), images)
    state, found = detector.begin(), list[Alarm | AllClear]()
    for begin in range(0, len(images), part):
        found += update(detector, state, images.select(range(begin, min(begin + part, len(images)))))
        state = detector.decode(state.encode(), state.predictions, state.seen_at)
    assert sorted((event.at, event.metric) for event in found) == sorted((event.at, event.metric) for event in whole)
    for one, other in zip(list_alarms(found, Metric.BRIGHTNESS), list_alarms(whole, Metric.BRIGHTNESS), strict=True):
        assert one.since == other.since
    assert state.predictions == 300


@pytest.mark.parametrize("gap_s", [20.0, 45.0, 90.0])
def test_saved_states_keep_the_start_of_a_drift(detector: DriftDetector, features: Features, gap_s: float) -> None:
    """Encoding the state after each prediction rounds the start of a drift down to the minute, once."""
    images = draw(features, 5, ("test", 150), ("test, brightness x0.6", 150))
    images = Observations(images.classes, images.measures, images.times / MINUTE * gap_s)
    whole = list_alarms(update(detector, detector.begin(), images), Metric.BRIGHTNESS)
    state, found = detector.begin(), list[Alarm | AllClear]()
    for index in range(len(images)):
        found += update(detector, state, images.select([index]))
        state = detector.decode(state.encode(), state.predictions, state.seen_at)
    assert [each.since for each in list_alarms(found, Metric.BRIGHTNESS)] == [
        each.since // MINUTE * MINUTE for each in whole
    ]


def test_a_state_is_about_a_kilobyte(detector: DriftDetector, features: Features) -> None:
    """An encoded state takes at most 1,150 characters; decoding one of another size raises ValueError."""
    state = detector.begin()
    update(detector, state, draw(features, 6, ("test", 100)))
    text = state.encode()
    assert len(text) <= 1150
    for wrong in (text[:-8], text + text[:8], "?"):
        with pytest.raises(ValueError, match=r".+"):
            detector.decode(wrong, 100, 0.0)


@pytest.mark.parametrize("metric", [Metric.GATE_SCORE, Metric.IMAGE_SIZE])
@pytest.mark.parametrize(
    ("below", "above", "change"),
    [(1.0, 0.0, "lower"), (0.0, 1.0, "higher"), (0.9, 0.1, "lower"), (0.5, 0.5, "lower_and_higher")],
)
def test_the_direction_of_extreme_values_is_named(
    detector: DriftDetector, features: Features, metric: Metric, below: float, above: float, change: str
) -> None:
    """The change is "lower" or "higher" if most values moved that way, "lower_and_higher" if many moved each way."""
    images = draw(features, 8, ("test", 200))
    values = images.measures[100:, MEASURES.index(metric)]
    values[:] = np.random.default_rng(9).choice([-1e3, 1e6], len(values), p=[below, above])
    alarms = list_alarms(update(detector, detector.begin(), images), metric)
    assert {alarm.change for alarm in alarms} == {change}


def test_recent_means_weight_recent_values(detector: DriftDetector, features: Features) -> None:
    """The recent mean of a measure follows the latest predictions and forgets earlier ones."""
    state = detector.begin()
    update(detector, state, draw(features, 7, ("test", 500), ("samples", 500)))
    expected = features["samples"].measures[:, MEASURES.index(Metric.SHARPNESS)].mean()
    assert detector.compare(state, Metric.SHARPNESS, "higher")[1] == pytest.approx(expected, rel=0.1)


def test_the_features_are_those_of_the_shipped_model(features: Features) -> None:
    """For the samples, features.csv has the observations that the shipped model yields."""
    backend = OnnxBackend(ARTEFACT)
    computed = observe_predictions(
        [predict_image(backend, path.read_bytes()) for path in sorted(SAMPLES.glob("*.jpg"))]
    )
    backend.close()
    assert computed.classes.tolist() == features["samples"].classes.tolist(), FILE
    assert computed.measures == pytest.approx(features["samples"].measures, rel=0.01)
