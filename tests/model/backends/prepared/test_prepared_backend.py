"""The ONNX back end with prepared copies: the same predictions, from memory pages that all sessions share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.backends import onnx
from model.backends.base import Origin, Weights
from model.backends.onnx import MODEL_FILE, OnnxBackend
from model.backends.prepared.builder import build_copy
from model.backends.prepared.copies import (
    GRAPH,
    RECORD,
    WEIGHTS,
    PreparedCopies,
    PreparedCopy,
    derive_key,
    describe_contents,
)
from model.backends.prepared.errors import PreparedCopyAbsent
from model.backends.prepared.machine import describe_machine
from model.backends.priority import WORKER_NICENESS
from model.backends.session_pool import using_one_core
from model.backends.sessions import open_prepared_sessions
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from model.registry.artefact import read_manifest
from tests.support.polling import wait_until

# Prints the private memory after predictions on both sessions, after the release, and after another prediction.
RELEASE = """
import sys
from pathlib import Path
from api.server.allocator import limit_memory_use
limit_memory_use()
import numpy as np
from model.backends.onnx import OnnxBackend
from model.backends.prepared.copies import PreparedCopies, derive_key
from monitoring.machine.memory import private_bytes
backend = OnnxBackend(Path(sys.argv[1]), 2, PreparedCopies(Path(sys.argv[2]), derive_key("secret")))
blank = np.zeros((1, *backend.info.input_spec.shape), np.uint8)
with backend._sessions.borrow():  # two threads would not be sure to use two sessions
    backend.predict(blank)
backend.predict(blank)
print(private_bytes())
backend.release_memory()
print(private_bytes())
backend.predict(blank)
print(private_bytes())
"""


@pytest.fixture(scope="module")
def shipped_copies(artefact_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCopies:
    """The prepared copy of the shipped model."""
    copies = PreparedCopies(tmp_path_factory.mktemp("prepared"), derive_key("secret"))
    build_copy(copies, artefact_folder, read_manifest(artefact_folder).files[MODEL_FILE].sha256)
    return copies


@pytest.fixture(scope="module")
def prepared(artefact_folder: Path, shipped_copies: PreparedCopies) -> Iterator[OnnxBackend]:
    with closing(OnnxBackend(artefact_folder, 2, shipped_copies)) as backend:
        yield backend


def list_mappings(name: str) -> list[str]:
    """The access rights of this process's mappings of files with that name."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split()[1] for line in lines if line.endswith(f"/{name}")]


def test_a_prepared_copy_predicts_the_same(prepared: OnnxBackend, artefact_folder: Path, samples: list[Path]) -> None:
    """Probabilities, pooled features and feature maps of a prepared copy equal those of the artefact bit for bit."""
    assert prepared.weights is not None
    assert prepared.weights.origin is Origin.PREPARED
    pixels = np.stack([decode_image(path.read_bytes(), DEFAULT_INPUT).pixels for path in samples])
    with closing(OnnxBackend(artefact_folder)) as original:
        assert original.weights is None
        assert original.info.digest == prepared.info.digest
        for expected, actual in (
            (original.predict_pooled(pixels), prepared.predict_pooled(pixels)),
            (original.predict_with_features(pixels), prepared.predict_with_features(pixels)),
        ):
            assert np.array_equal(expected[0], actual[0])
            assert np.array_equal(expected[1], actual[1])


def test_predictions_on_two_cores_are_the_same(shipped_copies: PreparedCopies, artefact_folder: Path) -> None:
    """A session that uses two cores computes the same bits as one that uses one core."""
    copy = shipped_copies.open(read_manifest(artefact_folder).files[MODEL_FILE].sha256)
    sessions = open_prepared_sessions(copy, [1, 2])
    assert [session.get_session_options().intra_op_num_threads for session in sessions] == [1, 2]
    noise = np.random.default_rng(0).integers(0, 256, (4, *DEFAULT_INPUT.shape), np.uint8)
    outputs = [[session.run(None, {"image": image[None]}) for image in noise] for session in sessions]
    for expected, actual in zip(*outputs, strict=True):
        assert all(map(np.array_equal, expected, actual))


def test_the_threads_of_a_session_yield_to_requests(shipped_copies: PreparedCopies, artefact_folder: Path) -> None:
    """The thread of the second core has the priority of the inference threads, below that of the event loop."""
    copy = shipped_copies.open(read_manifest(artefact_folder).files[MODEL_FILE].sha256)
    before = set(os.listdir("/proc/self/task"))
    (session,) = open_prepared_sessions(copy, [2])
    # The thread that opened the session has ended, but the system may list it for another moment.
    wait_until(lambda: len(set(os.listdir("/proc/self/task")) - before) == 1)
    (thread,) = set(os.listdir("/proc/self/task")) - before
    assert os.getpriority(os.PRIO_PROCESS, int(thread)) == max(WORKER_NICENESS, os.nice(0))
    del session


class Recorder:
    """Opens sessions that record the number of cores of each run."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.used: list[int] = []

    def open(self, copy: PreparedCopy, cores: Sequence[int]) -> list[RecordedSession]:
        self.opened += cores
        return [
            RecordedSession(session, self.used, count)
            for session, count in zip(open_prepared_sessions(copy, cores), cores, strict=True)
        ]


class RecordedSession:
    def __init__(self, session: Any, used: list[int], cores: int) -> None:
        self.session, self.used, self.cores = session, used, cores
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> Any:
        self.used.append(self.cores)
        return self.session.run(outputs, inputs)


@pytest.mark.parametrize(("at_once", "opened", "used"), [(1, [1], [1, 1]), (2, [1, 1, 2], [2, 1])])
def test_a_prediction_that_runs_alone_uses_two_cores(
    shipped_copies: PreparedCopies,
    artefact_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    opened: list[int],
    used: list[int],
) -> None:
    """The second prediction is one that a canary compares. With one inference thread, all use one core."""
    recorder = Recorder()
    monkeypatch.setattr(onnx, "open_prepared_sessions", recorder.open)
    with closing(OnnxBackend(artefact_folder, at_once, shipped_copies)) as backend:
        blank = np.zeros((1, *backend.info.input_spec.shape), np.uint8)
        backend.predict(blank)
        with using_one_core():
            backend.predict(blank)
    assert (recorder.opened, recorder.used) == (opened, used)


def test_sessions_share_one_mapping(prepared: OnnxBackend) -> None:
    """The sessions share one mapping of the file, which this process cannot write to."""
    assert prepared.weights is not None
    assert prepared.weights.shared_bytes > 16_000_000
    assert list_mappings(WEIGHTS) == ["r--s"]


def test_released_memory_is_returned_to_the_system(artefact_folder: Path, shipped_copies: PreparedCopies) -> None:
    """Sessions return the memory of their intermediate values, 14 MB each; the next prediction reallocates it."""
    arguments = [str(artefact_folder), str(shipped_copies.folder)]
    command = [sys.executable, "-c", RELEASE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    used, released, used_again = map(int, done.stdout.split())
    assert used - released > 20_000_000
    assert used_again - released > 10_000_000


def test_a_model_without_a_copy_is_served_from_its_artefact(artefact: Path, copies: PreparedCopies) -> None:
    """Before the first build, the back end serves the artefact and reports that there is no copy."""
    with closing(OnnxBackend(artefact, 1, copies)) as backend:
        assert backend.weights == Weights(Origin.ABSENT, "the model has no prepared copy for this machine")
        assert backend.predict(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 3)


def test_a_graph_without_large_weights_can_be_prepared(artefact: Path, copies: PreparedCopies, digest: str) -> None:
    """A graph that contains all its weights gets a copy with an empty weights file, which can be served."""
    build_copy(copies, artefact, digest)
    with closing(OnnxBackend(artefact, 1, copies)) as backend:
        assert backend.weights == Weights(Origin.PREPARED)
        assert backend.predict(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 3)


def test_a_copy_that_the_runtime_cannot_open_is_rejected(artefact: Path, copies: PreparedCopies, digest: str) -> None:
    """The back end opens the artefact if ONNX Runtime cannot load an authentic copy, and reports the reason."""
    build_copy(copies, artefact, digest)
    folder = copies.folder / copies.name_copy(digest)
    (folder / GRAPH).write_bytes(b"not a graph")
    files = {name: describe_contents((folder / name).read_bytes()) for name in (GRAPH, WEIGHTS)}
    (folder / RECORD).write_bytes(copies.make_record(folder.name, files))
    with closing(OnnxBackend(artefact, 1, copies)) as backend:
        assert backend.weights is not None
        assert backend.weights.origin is Origin.REJECTED
        assert backend.weights.reason.startswith("ONNX Runtime cannot open it")


def test_a_copy_of_another_key_is_absent(artefact: Path, copies: PreparedCopies, digest: str) -> None:
    """After a change of the key, an earlier copy counts as absent, not as forged."""
    build_copy(copies, artefact, digest)
    with pytest.raises(PreparedCopyAbsent):
        PreparedCopies(copies.folder, derive_key("another secret")).open(digest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t: A\nflags\t\t: fpu avx2\ncpu MHz\t: 1\n\nmodel name\t: B\n", ("A", "fpu avx2")),
        ("processor\t: 0\nFeatures\t: asimd sve\nCPU part\t: 0xd0c\n", ("asimd sve", "0xd0c")),
    ],
)
def test_a_copy_depends_on_the_processor(tmp_path: Path, text: str, expected: tuple[str, str]) -> None:
    """A copy depends on the model and features of the first processor, but not on values that vary, like its clock."""
    (tmp_path / "cpuinfo").write_text(text)
    facts = describe_machine(tmp_path / "cpuinfo")
    assert set(expected) < set(facts.values())
    assert not {"B", "1", "0"} & set(facts.values())


def test_a_copy_depends_on_the_runtime(tmp_path: Path) -> None:
    """If the system does not describe the processor, Python's name for it replaces its model and features."""
    assert {"onnxruntime", "architecture", "processor"} == set(describe_machine(tmp_path / "absent"))
