"""A canary trial of a bad candidate on a gateway with two workers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import httpx
import pytest

from tests.model.registry.permuted_head import permute_head
from tests.model.registry.registered_models import NAME, ModelRegistry, read_entries
from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import FOREST, SHRUBLAND
from tests.support.polling import wait_until

WORKERS = 2
MAX_COMPARISONS = 500
IMAGES = [FOREST.read_bytes(), SHRUBLAND.read_bytes()]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """A registry with the shipped model in production, and a version whose classes are permuted."""
    registry = ModelRegistry(tmp_path_factory.mktemp("registry"))
    registry.add("1.1")
    registry.add("1.2", permute_head())
    registry.promote("1.1")
    return registry


@pytest.fixture(scope="module")
def gateway(registry: ModelRegistry) -> Iterator[Gateway]:
    changes = {"WEB_CONCURRENCY": str(WORKERS), "MODEL__WORKERS": "1", "CANARY__SHARE": "1", "CANARY__VERDICT": "act"}
    with running_gateway(None, **changes, **registry.settings) as gateway:
        yield gateway


def send(gateway: Gateway, image: bytes, token: str) -> httpx.Response:
    """Classify the image on a connection of its own, so that both workers serve."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
    return gateway.post("/v1/predictions", content=image, headers=headers)


def test_a_bad_candidate_is_taken_back_soon(gateway: Gateway, registry: ModelRegistry) -> None:
    """The candidate is taken back within 500 comparisons; callers notice nothing, and both workers release it."""
    registry.files.move_aliases(NAME, {"candidate": "1.2"}, who="cli:olga", why="a test")
    wait_until(lambda: gateway.log().count('"candidate_in_trial"') == WORKERS, message=gateway.log)
    shown = gateway.run("models", "status", NAME)
    assert "It gets copies of 100 % of the requests." in shown.stdout, shown
    token, versions, images = gateway.token(), set[str](), itertools.cycle(IMAGES)

    def is_taken_back() -> bool:
        response = send(gateway, next(images), token)
        assert response.status_code == 200, response.text
        versions.add(response.json()["model"]["version"])
        return "candidate" not in registry.files.read(NAME).aliases

    wait_until(is_taken_back, message=lambda: gateway.metric('atalaya_canary_shadow_total{outcome="dropped"}'))
    assert versions == {"1.1"}
    wait_until(lambda: gateway.log().count('"candidate_released"') == WORKERS, message=gateway.log)
    wait_until(lambda: '"canary_verdict"' in gateway.log(), message=gateway.log)
    (line,) = [json.loads(line) for line in gateway.log().splitlines() if '"canary_verdict"' in line]
    assert (line["verdict"], line["moved"], line["candidate"]) == ("take_back", True, "1.2")
    assert "disagreement is at least" in line["reasons"][0]
    entries = read_entries(gateway.database_path).values()
    (verdict,) = (entry["canary_verdict"] for entry in entries if entry.get("kind") == "canary_verdict")
    # Not the number of requests: while the deciding worker is suspended, the other one serves many more.
    assert sum(verdict["counts"]["disagreement"]) <= MAX_COMPARISONS
    assert gateway.metric('atalaya_canary_verdicts_total{verdict="take_back"}') == 1
    verified = gateway.run("ledger", "verify")
    assert verified.returncode == 0, verified
