"""The contract of `Backend`, tested on every back end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from model.backends.base import Backend
from model.backends.engines import SCHEMES
from model.backends.oip.backend import EngineOptions
from model.backends.open import open_backend
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S
from tests.support.servers.engines.running import ENGINES, running_engines

Pixels = NDArray[np.uint8]
GOLDEN = ROOT / "tests" / "model" / "fixtures" / "golden_predictions.json"


def list_onnx_schemes() -> list[str]:
    """The schemes whose engine the installed ONNX Runtime has. Other engines need other packages of ONNX Runtime."""
    return [scheme for scheme, engine in SCHEMES.items() if engine in onnxruntime.get_available_providers()]


@pytest.fixture(
    scope="module",
    params=["stub", *list_onnx_schemes(), pytest.param("keras", marks=pytest.mark.keras), *ENGINES],
)
def kind(request: pytest.FixtureRequest) -> str:
    """The scheme of the back end's URL, or the inference engine to which it sends the images."""
    return str(request.param)


@pytest.fixture(scope="module")
def open_it(
    kind: str, artefact_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Backend]]:
    if kind in ENGINES:
        options = EngineOptions(artefact_folder, longest_s=PATIENCE_S)
        with running_engines(tmp_path_factory.mktemp(kind), kind) as (engine,):
            yield lambda: open_backend(engine.oip_url, engines=options)
    else:
        yield lambda: open_backend("stub://" if kind == "stub" else f"{kind}://{artefact_folder}")


@pytest.fixture(scope="module")
def backend(open_it: Callable[[], Backend]) -> Iterator[Backend]:
    backend = open_it()
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def pixels(samples: list[Path]) -> Pixels:
    """The shipped photographs, uint8 [4, 256, 256, 3]."""
    return np.stack([decode_image(path.read_bytes(), DEFAULT_INPUT).pixels for path in samples])


def test_the_model_is_described(backend: Backend, kind: str) -> None:
    """A back end describes its model by name, version, digest and classes; these engines do not report the digest."""
    info = backend.info
    assert info.backend == ("oip+http" if kind in ENGINES else kind)
    assert info.full_name == f"{info.name}-v{info.version}"
    assert len(info.digest) == (0 if kind in ENGINES else 64)
    assert set(info.digest) <= set("0123456789abcdef")
    assert len(set(info.classes)) == len(info.classes) == 21


def test_probabilities_are_float32_rows_that_add_up_to_one(backend: Backend, pixels: Pixels) -> None:
    """There is one row per image and one column per class, and no value is negative."""
    probabilities = backend.predict(pixels)
    assert probabilities.shape == (4, 21)
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)


def test_every_back_end_gives_the_same_probabilities(
    backend: Backend, kind: str, pixels: Pixels, artefact_folder: Path
) -> None:
    """For the shipped model, all back ends agree on the labels, and on the probabilities to within 1e-4.

    onnx:// itself agrees with recorded probabilities to within 1e-3, because decoders and runtimes change. The stub,
    which has another model, agrees with another stub.
    """
    if kind == "onnx":
        expected = np.array([recorded[1] for recorded in sorted(json.loads(GOLDEN.read_text()).items())])
    else:
        reference = open_backend("stub://" if kind == "stub" else f"onnx://{artefact_folder}")
        expected = reference.predict(pixels)
        reference.close()
    probabilities = backend.predict(pixels)
    assert np.array_equal(probabilities.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-3 if kind == "onnx" else 1e-4)


def test_different_images_get_different_probabilities(backend: Backend, pixels: Pixels) -> None:
    """The probabilities depend on the pixels."""
    assert len(np.unique(backend.predict(pixels), axis=0)) == 4


def test_predictions_are_deterministic(backend: Backend, pixels: Pixels) -> None:
    """Repeating a prediction gives exactly the same probabilities."""
    assert np.array_equal(backend.predict(pixels[:1]), backend.predict(pixels[:1]))


def test_images_of_a_batch_are_independent(backend: Backend, pixels: Pixels) -> None:
    """An image gets the same probabilities alone and in a batch."""
    alone = np.concatenate([backend.predict(image[np.newaxis]) for image in pixels])
    np.testing.assert_allclose(backend.predict(pixels), alone, atol=1e-5)


def test_features_come_with_the_same_probabilities(backend: Backend, pixels: Pixels) -> None:
    """Requesting feature maps, float32 [n, h, w, c], does not change the probabilities."""
    probabilities, features = backend.predict_with_features(pixels)
    np.testing.assert_allclose(probabilities, backend.predict(pixels), atol=1e-6)
    assert features.dtype == np.float32
    assert features.ndim == 4
    assert len(features) == 4


def test_pooled_features_are_the_means_of_the_feature_maps(backend: Backend, pixels: Pixels) -> None:
    """Pooled features, float32 [n, c], are the means of the feature maps; requesting them changes no probability."""
    probabilities, pooled = backend.predict_pooled(pixels[:1])
    assert np.array_equal(probabilities, backend.predict(pixels[:1]))
    assert pooled.dtype == np.float32
    _, features = backend.predict_with_features(pixels[:1])
    np.testing.assert_allclose(pooled, features.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_the_layout_in_memory_does_not_matter(backend: Backend, pixels: Pixels) -> None:
    """A strided view gives the same probabilities as its copy, and is not written to."""
    view = pixels[:1, :, ::-1]
    copy = view.copy()
    assert np.array_equal(backend.predict(view), backend.predict(copy))
    assert np.array_equal(view, copy)


def test_released_memory_changes_no_prediction(backend: Backend, pixels: Pixels) -> None:
    """Predictions before, during and after the release of memory are the same."""
    expected = backend.predict(pixels[:1])
    with ThreadPoolExecutor(2) as threads:
        results = [threads.submit(backend.predict, pixels[:1]) for _ in range(4)]
        backend.release_memory()
        assert all(np.array_equal(result.result(), expected) for result in results)
    backend.release_memory()
    assert np.array_equal(backend.predict(pixels[:1]), expected)


def test_threads_do_not_disturb_each_other(backend: Backend, pixels: Pixels) -> None:
    """Four threads that predict different images at once get the results of a single thread."""
    expected = [backend.predict(image[np.newaxis]) for image in pixels]
    order = [index % 4 for index in range(24)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda index: backend.predict(pixels[index : index + 1]), order))
    assert all(np.array_equal(result, expected[index]) for result, index in zip(results, order, strict=True))


def test_a_back_end_can_be_closed_twice(open_it: Callable[[], Backend]) -> None:
    """The second `close` does nothing."""
    backend = open_it()
    backend.close()
    backend.close()
