"""How many inference threads a process starts, and the memory that it keeps free for other processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from api.services.capacity import count_inference_threads, fit_inference_threads
from api.services.mirror.process import PULLER_BYTES
from api.services.serving import image_memory_bytes
from api.settings import Settings
from model.backends.open import open_backend
from tests.support.gateway import Gateway, make_gateway
from tests.support.linux.control_groups import ControlGroup, NoControlGroup, container_groups
from tests.support.paths import FOREST
from tests.support.requirements import missing

MEBIBYTE = 1 << 20


@pytest.mark.parametrize(
    ("processors", "megabytes", "workers", "threads"),
    [
        (2, 512, 1, 2),
        (10, 512, 1, 6),
        (10, 256, 1, 1),
        (10, 16, 1, 1),
        (10, 16_384, 1, 10),
        (10, 16_384, 4, 2),
        (2, 16_384, 4, 1),
        (64, 1024, 2, 6),
    ],
)
def test_threads_follow_processors_and_memory(processors: int, megabytes: int, workers: int, threads: int) -> None:
    """There is one thread for each processor of a worker, but no more than its memory allows, and at least one."""
    assert fit_inference_threads(processors, megabytes * MEBIBYTE, workers) == threads


def test_setting_overrides_the_count(settings: Settings) -> None:
    """MODEL__WORKERS overrides the computed number of threads."""
    assert count_inference_threads(settings) == settings.model.workers == 2


@pytest.fixture
def groups() -> Iterator[list[ControlGroup]]:
    """The control groups of a container with half a processor and 400 MiB of memory."""
    try:
        with container_groups(0.5, 400 * MEBIBYTE) as groups:
            yield groups
    except NoControlGroup as error:
        missing(str(error))


def enter_groups(gateway: Gateway, groups: list[ControlGroup]) -> Gateway:
    """The gateway, started by a shell that first joins the groups."""
    joins = "".join(f"echo $$ > {group.members}; " for group in groups)
    return replace(gateway, command=["sh", "-c", f'{joins}exec "$@"', "sh", *gateway.command])


def test_a_gateway_obeys_its_control_group(tmp_path: Path, groups: list[ControlGroup]) -> None:
    """With a quota of half a processor and 400 MiB, the gateway starts one inference thread, predicts and survives."""
    gateway = enter_groups(make_gateway(tmp_path), groups)
    gateway.start()
    try:
        lines = [json.loads(line) for line in gateway.complete_log().splitlines() if line.startswith("{")]
        assert [line["threads"] for line in lines if line.get("event.name") == "inference_threads"] == [1]
        headers = {"Content-Type": "image/jpeg"}
        response = gateway.client().post("/v1/predictions", content=FOREST.read_bytes(), headers=headers)
        assert response.status_code == 200
    finally:
        assert gateway.stop() == 0


def test_memory_of_the_process_that_pulls_is_kept_free() -> None:
    """Images get less memory if a process pulls from an MLflow server, because both must fit into the container."""
    backend = open_backend("stub://")
    plain = image_memory_bytes(Settings(), backend)
    mirrored = Settings(model={"registry": "mlflow+http://models", "url": "registry://landuse@production"})
    assert plain - image_memory_bytes(mirrored, backend) == pytest.approx(PULLER_BYTES, abs=8 << 20)
