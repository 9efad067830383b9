"""Candidates beside the model in production: what callers get, the verdict, and its consequences."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.settings.model import ModelSettings
from api.settings.quality.canary import CanarySettings
from model.canary.judge import JudgeRules
from model.imaging.input_spec import InputSpec
from model.registry.files import FileRegistry
from tests.api.conftest import LogIn, MakeClient
from tests.api.routes.v2.bodies import describe_files, make_body, pack
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.model.serving.gated import png
from tests.support.polling import wait_until

NAME = "tiny"
PRODUCTION, EQUAL, BAD = "1.0", "1.1", "1.2"
UNPAUSED_REQUESTS = 500
# The graph runs for microseconds, so chance decides which of two equal ones is slower.
ANY_LATENCY = {"latency": [0.98, 0.99]}
IMAGES = [png(value) for value in (0, 255)]


class TrialGateway:
    """A gateway that tries a candidate, and a caller that sends images until something happens."""

    def __init__(self, client: TestClient, token: dict[str, str], registry: FileRegistry, database: Path) -> None:
        self.client, self.token, self.registry, self.database = client, token, registry, database
        self.served = Counter[str]()

    def send(self) -> str:
        """Send an image, and return the version that responds."""
        image = IMAGES[self.served.total() % len(IMAGES)]
        headers = {**self.token, "Content-Type": "image/png"}
        response = self.client.post("/v1/predictions", content=image, headers=headers)
        assert response.status_code == 200, response.text
        version: str = response.json()["model"]["version"]
        self.served[version] += 1
        return version

    def send_until(self, condition: Callable[[], object]) -> None:
        """Send images until the condition holds; later with pauses, so that a busy machine can compare models."""

        def holds() -> bool:
            if condition():
                return True
            self.send()
            return False

        while self.served.total() < UNPAUSED_REQUESTS:
            if holds():
                return
        wait_until(holds, message=self.count)

    def aliases(self) -> dict[str, str]:
        return dict(self.registry.read(NAME).aliases)

    def count(self) -> dict[str, tuple[int, int, int]]:
        """The counts in the database, by metric."""
        rows = self._query("SELECT metric, worse, same, better FROM canary_counts")
        return {metric: counts for metric, *counts in rows}

    def verdicts(self) -> list[tuple[str, bool]]:
        """The verdicts, and whether acting on them is finished."""
        rows = self._query("SELECT verdict, is_finished FROM canary_trials WHERE verdict IS NOT NULL")
        return [(verdict, bool(is_finished)) for verdict, is_finished in rows]

    def entries(self) -> list[dict[str, Any]]:
        """The documents of the ledger that record a verdict."""
        rows = self._query("SELECT document FROM ledger_payloads WHERE document LIKE '%canary_verdict%'")
        return [json.loads(document)["canary_verdict"] for (document,) in rows]

    def _query(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(statement).fetchall()


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    """A registry with a model in production, an equal one, and one that is wrong about every image."""
    registry = FileRegistry(tmp_path / "registry")
    for version in (PRODUCTION, EQUAL, BAD):
        folder = tmp_path / version
        folder.mkdir()
        registry.add(write_tiny_artefact(folder, InputSpec(32, 32), version=version, inverted=version == BAD))
    registry.move_aliases(NAME, {"production": PRODUCTION}, who="cli:olga", why="a test")
    return registry


@pytest.fixture
def try_candidate(
    registry: FileRegistry, tmp_path: Path, make_client: MakeClient, log_in: LogIn
) -> Callable[..., TrialGateway]:
    """Start a gateway that tries a version on all requests, with the settings CANARY__…"""

    def start(version: str, **canary: Any) -> TrialGateway:
        registry.move_aliases(NAME, {"candidate": version}, who="cli:olga", why="a test")
        settings = CanarySettings(share=1, limits=ANY_LATENCY, **canary)
        model = ModelSettings(
            registry=f"file://{tmp_path}/registry", url=f"registry://{NAME}", workers=2, prepare=False
        )
        client = make_client(model=model, canary=settings)
        return TrialGateway(client, log_in(client), registry, tmp_path / "gateway.db")

    return start


def test_a_bad_candidate_is_taken_back(try_candidate: Callable[..., TrialGateway]) -> None:
    """A bad candidate in shadow mode reaches no caller; its alias is removed, and the ledger has the reasons."""
    trial = try_candidate(BAD, verdict="act")
    trial.send_until(lambda: "candidate" not in trial.aliases())
    wait_until(lambda: trial.verdicts() == [("take_back", True)], message=trial.verdicts)
    assert trial.served.keys() == {PRODUCTION}
    assert trial.aliases() == {"production": PRODUCTION}
    (entry,) = trial.entries()
    assert (entry["candidate"], entry["verdict"], entry["moved"]) == (BAD, "take_back", True)
    assert "disagreement is at least" in entry["reasons"][0]


def test_an_equal_candidate_is_promoted(try_candidate: Callable[..., TrialGateway]) -> None:
    """The gateway moves production to the candidate, removes its alias, and then serves the new version."""
    trial = try_candidate(EQUAL, verdict="act", mode="canary")
    trial.send_until(lambda: trial.aliases()["production"] == EQUAL)
    wait_until(lambda: trial.verdicts() == [("promote", True)], message=trial.verdicts)
    assert trial.aliases() == {"production": EQUAL, "previous": PRODUCTION}
    wait_until(lambda: trial.send() == EQUAL)
    assert trial.served[EQUAL] >= JudgeRules().min_comparisons
    assert len(trial.entries()) == 1


def test_advice_moves_nothing(try_candidate: Callable[..., TrialGateway]) -> None:
    """With `advise` the verdict is recorded, the candidate gets no more requests, and every alias stays."""
    trial = try_candidate(BAD, verdict="advise", mode="canary")
    trial.send_until(lambda: trial.verdicts() == [("take_back", True)])
    wait_until(lambda: trial.send() == PRODUCTION)
    assert trial.aliases() == {"production": PRODUCTION, "candidate": BAD}
    assert [entry["moved"] for entry in trial.entries()] == [False]
    counts = trial.count()
    for _ in range(5):
        assert trial.send() == PRODUCTION
    assert trial.count() == counts


def test_the_status_route_shows_the_evidence(try_candidate: Callable[..., TrialGateway], log_in: LogIn) -> None:
    """An operator reads what is compared, the counts of each metric, and the verdict with its reasons."""
    trial = try_candidate(BAD, verdict="advise")
    operator, path = log_in(trial.client, "olga"), f"/v1/models/{NAME}/status"
    trial.send_until(lambda: trial.verdicts() == [("take_back", True)])
    status = trial.client.get(path, headers=operator).json()
    assert (status["production"], status["candidate"]) == (PRODUCTION, BAD)
    assert (status["trial"]["verdict"], status["trial"]["policy"]) == ("take_back", "advise")
    rows = {row["metric"]: (row["worse"], row["comparisons"]) for row in status["trial"]["evidence"]}
    assert rows["disagreement"][0] == rows["disagreement"][1] >= 30
    assert "disagreement is at least" in status["trial"]["reasons"][0]
    assert trial.client.get(path, headers=trial.token).status_code == 403


def test_nothing_is_tried_when_it_is_off(try_candidate: Callable[..., TrialGateway]) -> None:
    """With the mode `off` the alias `candidate` has no effect."""
    trial = try_candidate(BAD, mode="off", verdict="act")
    for _ in range(5):
        assert trial.send() == PRODUCTION
    assert (trial.count(), trial.verdicts()) == ({}, [])


def test_the_metrics_of_a_trial_exist_from_its_start(try_candidate: Callable[..., TrialGateway], log_in: LogIn) -> None:
    """Counters are 0 from the start of a trial, and the evidence is shown from the first comparison on."""
    trial = try_candidate(BAD, mode="shadow")
    operator = log_in(trial.client, "olga")

    def read() -> str:
        return trial.client.get("/metrics", headers=operator).text

    wait_until(lambda: 'atalaya_canary_verdicts_total{verdict="promote"} 0.0' in read())
    text = read()
    assert 'atalaya_canary_comparisons_total{metric="accuracy",result="better"} 0.0' in text
    assert 'atalaya_canary_shadow_total{outcome="dropped"} 0.0' in text
    assert 'metric="disagreement",result="better"' not in text
    trial.send_until(lambda: 'atalaya_canary_log_e{direction="take_back",metric="disagreement"}' in read())


def test_a_request_for_several_images_takes_no_part_in_a_trial(try_candidate: Callable[..., TrialGateway]) -> None:
    """The candidate classifies only images that are sent alone; production classifies several images in one request."""
    trial = try_candidate(EQUAL, mode="canary")
    trial.send_until(lambda: trial.served[EQUAL])
    versions = []
    for images in (IMAGES[:1], IMAGES):
        header, body = make_body(describe_files(len(images)), pack(*images))
        response = trial.client.post(f"/v2/models/{NAME}/infer", headers=trial.token | header, content=body)
        versions.append(response.json()["model_version"])
    assert versions == [EQUAL, PRODUCTION]
