"""Preparing a copy of the model while the first start serves, and using the copy in later starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.backends.prepared.copies import RECORD, WEIGHTS
from tests.model.signing.forging import flip_a_bit
from tests.support.gateway import Gateway, make_gateway
from tests.support.linux import processes
from tests.support.paths import FOREST
from tests.support.polling import wait_until

DONE = 'atalaya_preparations_total{outcome="done"}'
FAILED = 'atalaya_preparations_total{outcome="failed"}'


@pytest.fixture
def preparing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that prepares its model, not started yet."""
    gateway = make_gateway(tmp_path_factory.mktemp("gateway"), MODEL__PREPARE="true")
    yield gateway
    if gateway.started is not None and gateway.is_running:
        gateway.stop()


def count_loads(gateway: Gateway, origin: str) -> float:
    return gateway.metric(f'atalaya_weights_loaded_total{{origin="{origin}"}}')


def predict(gateway: Gateway) -> dict[str, float]:
    response = gateway.client().post("/v1/predictions?top_k=21", files={"file": FOREST.read_bytes()})
    return {entry["label"]: entry["probability"] for entry in response.json()["predictions"]}


def shared_weights_kb(pid: int) -> int:
    """Return how many kilobytes of its prepared weights a process shares with others."""
    blocks = Path(f"/proc/{pid}/smaps").read_text().split("VmFlags:")
    mapped = next(block for block in blocks if f"/{WEIGHTS}\n" in block)
    return sum(int(line.split()[1]) for line in mapped.splitlines() if line.startswith("Shared_"))


def test_the_second_start_uses_the_copy_of_the_first(preparing: Gateway) -> None:
    """The first start serves the artefact, prepares a copy and switches to it; the second serves the copy at once.

    All predictions are equal. A copy with a changed bit is rejected, counted and built again.
    """
    preparing.start()
    assert count_loads(preparing, "absent") == 1
    first = predict(preparing)
    wait_until(lambda: count_loads(preparing, "prepared") == 1, message=preparing.log)
    assert preparing.metric(DONE) == 1
    assert predict(preparing) == first
    preparing.stop()

    preparing.start()
    assert count_loads(preparing, "prepared") == 1
    assert preparing.metric(DONE) == 0
    assert predict(preparing) == first
    preparing.stop()

    (weights,) = Path(preparing.folder).glob(f"var/prepared/*/{WEIGHTS}")
    flip_a_bit(weights)
    preparing.start()
    assert count_loads(preparing, "rejected") == 1
    assert f"{WEIGHTS} differs from its record" in preparing.log()
    assert predict(preparing) == first
    wait_until(lambda: count_loads(preparing, "prepared") == 1, message=preparing.log)
    preparing.stop()


def test_workers_share_the_weights(preparing: Gateway) -> None:
    """Worker processes map the same pages of the prepared copy."""
    gateway = preparing.with_settings(WEB_CONCURRENCY="2")
    assert gateway.run("models", "prepare").returncode == 0
    gateway.start()
    try:
        wait_until(lambda: len(processes.children(gateway.pid)) == 2, message=gateway.log)
        wait_until(lambda: count_loads(gateway, "prepared") == 2, message=gateway.log)
        first, second = gateway.workers()
        # The second worker maps its last pages when it makes its first prediction.
        wait_until(lambda: shared_weights_kb(first) == shared_weights_kb(second) > 16_000)
    finally:
        gateway.stop()


def test_a_gateway_that_cannot_prepare_serves_the_artefact(preparing: Gateway, tmp_path: Path) -> None:
    """If no copy can be written, the gateway serves the artefact, counts the failure and logs it once."""
    (tmp_path / "file").touch()
    gateway = preparing.with_settings(MODEL__PREPARED_FOLDER=str(tmp_path / "file" / "prepared"))
    gateway.start()
    try:
        wait_until(lambda: gateway.metric(FAILED) == 1, message=gateway.log)
        assert gateway.complete_log().count("model_not_prepared") == 1
        assert "Correct MODEL__PREPARED_FOLDER" in gateway.log()
        assert len(predict(gateway)) == 21
    finally:
        gateway.stop()


def test_the_command_prepares_the_model(preparing: Gateway, tmp_path: Path) -> None:
    """`atalaya models prepare` builds the copy before the first start, and only once."""
    gateway = preparing.with_settings(MODEL__PREPARED_FOLDER=str(tmp_path / "prepared"))
    first, second = (gateway.run("models", "prepare") for _ in range(2))
    assert [first.returncode, second.returncode] == [0, 0], first.stderr
    assert "is now prepared" in first.stdout
    assert "was already prepared" in second.stdout
    assert len(list((tmp_path / "prepared").glob(f"*/{RECORD}"))) == 1
