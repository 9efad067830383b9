"""`GET /v1/labels`: the classes of the model in service, with display names."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from model.backends.stub import StubBackend
from model.classes import UC_MERCED_CLASSES
from model.display_names import LANGUAGES, find_display_name
from tests.api.conftest import LogIn, MakeClient

Bearer = dict[str, str]


def test_labels_are_named_in_the_preferred_language(client: TestClient, bearer: Bearer) -> None:
    """With `Accept-Language: es`, each label has its Spanish display name."""
    response = client.get("/v1/labels", headers={**bearer, "Accept-Language": "es-MX,es;q=0.9,en;q=0.5"})
    assert (response.status_code, response.headers["Content-Language"]) == (200, "es")
    body = response.json()
    assert (body["language"], body["model"]["name"]) == ("es", "stub")
    assert [entry["label"] for entry in body["labels"]] == list(UC_MERCED_CLASSES)
    assert body["labels"][12] == {
        "index": 12,
        "label": "mediumresidential",
        "display_name": "residencial de densidad media",
    }


def test_names_are_english_by_default(client: TestClient, bearer: Bearer) -> None:
    """Names are in English if no supported language is requested; `Vary` names the header that decides."""
    for headers in ({}, {"Accept-Language": "fr"}):
        response = client.get("/v1/labels", headers={**bearer, **headers})
        assert (response.headers["Content-Language"], response.headers["Vary"]) == ("en", "Accept-Language")
        assert response.json()["labels"][20] == {"index": 20, "label": "tenniscourt", "display_name": "tennis court"}


def test_labels_of_another_model_are_their_own_names(make_client: MakeClient, log_in: LogIn) -> None:
    """A class without a display name is named by its label."""
    client = make_client(open_model=lambda: StubBackend(classes=("river", "glacier")))
    response = client.get("/v1/labels", headers={**log_in(client), "Accept-Language": "es"})
    assert [entry["display_name"] for entry in response.json()["labels"]] == ["río", "glacier"]


def test_labels_take_the_scope_of_predictions(client: TestClient, log_in: LogIn) -> None:
    """A caller that may not predict gets no labels."""
    response = client.get("/v1/labels", headers=log_in(client, scope="predictions:read"))
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_class_has_a_name(language: str) -> None:
    """In each language every class has a distinct lower-case name, and a compound label is not used as a name."""
    names = [find_display_name(label, language) for label in UC_MERCED_CLASSES]
    assert len(set(names)) == len(names)
    assert [name for name in names if name != name.lower().strip()] == []
    assert find_display_name("mobilehomepark", language) not in UC_MERCED_CLASSES
