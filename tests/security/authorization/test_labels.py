"""Threat T58: who can label which predictions, on a running gateway."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest

from tests.security.authorization.predictions import NEVER_ISSUED, comparable, predict
from tests.support.gateway import Gateway, make_gateway


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the users `ana` and `cleo` (clients) and `olga` (operator)."""
    gateway = make_gateway(tmp_path_factory.mktemp("labels"), MODEL__URL="stub://")
    gateway.add_user("cleo")
    gateway.start()
    yield gateway
    assert gateway.stop() == 0, gateway.log()


def send_label(client: httpx.Client, prediction: str, label: str = "forest") -> httpx.Response:
    return client.post(f"/v1/predictions/{prediction}/label", json={"label": label})


def read_labels(gateway: Gateway, prediction: str) -> list[tuple[str, str]]:
    """Return the labels of a prediction in the ledger, oldest first, each with the subject who sent it."""
    exported = gateway.run("ledger", "export", "-")
    assert exported.returncode == 0, exported.stderr
    payloads = [record.get("payload") for record in map(json.loads, exported.stdout.splitlines())]
    events = [json.loads(payload["document"]) for payload in payloads if payload]
    labels = [event["label"] for event in events if event.get("kind") == "label"]
    return [(label["label"], label["by"]) for label in labels if label["prediction"] == prediction]


def test_another_callers_prediction_cannot_be_labelled(stub: Gateway) -> None:
    """T58: a client who labels another's prediction gets the same 404 as for one that never existed, with any label."""
    owner, cleo = stub.client(), stub.client("cleo")
    prediction = predict(owner)
    for label in ("forest", "volcano"):
        others, never = (send_label(cleo, wanted, label) for wanted in (prediction, NEVER_ISSUED))
        assert (others.status_code, others.json()["code"]) == (404, "prediction_not_found")
        assert comparable(others) == comparable(never)
    assert owner.get(f"/v1/predictions/{prediction}").json()["labels"] == []


def test_who_may_promote_may_label(stub: Gateway) -> None:
    """T58: an operator can label any prediction, and the owner sees that it was an operator."""
    owner = stub.client()
    prediction = predict(owner)
    assert send_label(stub.client("olga"), prediction).status_code == 201
    (label,) = owner.get(f"/v1/predictions/{prediction}").json()["labels"]
    assert (label["label"], label["by"]) == ("forest", "operator")


def test_a_callers_own_label_cannot_hide_an_earlier_one(stub: Gateway) -> None:
    """T58: every label stays in the ledger with the subject who sent it, even when a later one counts instead."""
    owner, operator = stub.client(), stub.client("olga")
    prediction = predict(owner)
    for client, label in ((owner, "river"), (operator, "forest"), (owner, "river")):
        assert send_label(client, prediction, label).status_code == 201
    labels = owner.get(f"/v1/predictions/{prediction}").json()["labels"]
    assert [each["label"] for each in labels] == ["river", "forest", "river"]
    ana, olga = (client.get("/v1/me").json()["subject"] for client in (owner, operator))
    assert read_labels(stub, prediction) == [("river", ana), ("forest", olga), ("river", ana)]
    verified = stub.run("ledger", "verify")
    assert verified.returncode == 0, verified.stderr


def test_results_changed_in_the_database_are_found(new_gateway: Callable[..., Gateway]) -> None:
    """T58: `ledger verify` finds a change in the database to the rows that results are computed from."""
    gateway = new_gateway(MODEL__URL="stub://")
    owner = gateway.client()
    assert send_label(owner, predict(owner), "river").status_code == 201
    with closing(sqlite3.connect(gateway.database_path)) as connection, connection:
        connection.execute("UPDATE ledger_labels SET label = predicted")
    verified = gateway.run("ledger", "verify")
    assert verified.returncode == 1
    assert "row of the label in entry" in verified.stderr
