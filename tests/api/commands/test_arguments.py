"""Arguments that are malformed: addresses of servers, empty scopes, and bytes that are not UTF-8."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from api.cli import run
from auth.tokens.jws import generate_signing_key
from tests.support.gateway import create_database

Captured = pytest.CaptureFixture[str]
NOT_UTF8 = os.fsdecode(b"\xff")
URLS = ("http://[::1", "http://a..b", "http://host:99999", "http://\N{LATIN SMALL LETTER E WITH ACUTE}..b")


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create_database(f"sqlite:///{tmp_path}/var/atalaya.db")
    monkeypatch.setenv("AUTH__SIGNING_KEY", generate_signing_key("ES256"))


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--url", ["classify", "--token", "x", "a.jpg"]),
        ("--url", ["label", "--token", "x", "1", "forest"]),
        ("--url", ["top", "--once"]),
        ("--alerts-url", ["top", "--once"]),
        ("--url", ["token", "--user", "ana"]),
    ],
    ids=["classify", "label", "top", "alerts", "token"],
)
def test_a_malformed_url_is_a_usage_error(url: str, option: str, arguments: list[str], capsys: Captured) -> None:
    """A URL that no HTTP client can use is a usage error that names the option and the URL."""
    assert run([*arguments, option, url]) == 2
    assert capsys.readouterr().err.startswith(f"error: Invalid value: {option}: {url} is not a URL: ")


@pytest.mark.parametrize("url", ["http://[::1", "http://a..b", "http://host:99999"])
def test_a_malformed_address_of_mlflow_is_a_usage_error(url: str, capsys: Captured) -> None:
    """The address of an MLflow server that no HTTP client can use is a usage error."""
    assert run(["models", "publish", "artefact", "--to", f"mlflow+{url}"]) == 2
    assert capsys.readouterr().err.startswith("error: Invalid value")


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_a_host_that_is_no_name_is_an_error_of_the_setting(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """A host that IDNA cannot encode is reported like any other name that is not an address of this machine."""
    monkeypatch.setenv("MODEL__URL", "stub://")
    assert run(["demo", "--host", host]) == 1
    assert f"HOST: {host} is not an address of this machine." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("--user", ["keys", "create", "--name", "x", "--user", NOT_UTF8]),
        ("--user", ["keys", "list", "--user", NOT_UTF8]),
        ("name", ["clients", "add", NOT_UTF8, "--scope", "predict"]),
        ("--scope", ["clients", "add", "x", "--scope", "predict", "--scope", NOT_UTF8]),
        ("ID", ["ledger", "replay", NOT_UTF8, "a.jpg"]),
        ("--principal", ["ledger", "export", "e.jsonl", "--principal", NOT_UTF8]),
        ("[VERSION]", ["models", "verify", "x", NOT_UTF8]),
        ("LABEL", ["label", "--url", "http://127.0.0.1:1", "--token", "x", "1", NOT_UTF8]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_text_that_is_not_utf8_is_a_usage_error(name: str, arguments: list[str], capsys: Captured) -> None:
    """Bytes that are not UTF-8 are a usage error, which names the argument or the option."""
    assert run(arguments) == 2
    assert capsys.readouterr().err == f"error: Invalid value for '{name}': This is not valid UTF-8.\n"


@pytest.mark.parametrize("scope", ["", " "])
@pytest.mark.parametrize(
    "arguments",
    [
        ["clients", "add", "maps"],
        ["keys", "create", "--user", "ana", "--name", "maps"],
        ["token", "--user", "ana", "--password-stdin"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_empty_scope_is_a_usage_error(arguments: list[str], scope: str, capsys: Captured) -> None:
    """An empty --scope, such as a variable that a script forgot to set, does not grant all scopes."""
    assert run([*arguments, "--scope", scope]) == 2
    assert capsys.readouterr().err == (
        "error: Invalid value for '--scope': It is empty. Name at least one scope, or leave out --scope for the "
        "default.\n"
    )


def test_weights_may_have_a_name_of_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of the starting weights may have a name that is not UTF-8; the training process receives its bytes."""
    python = Path("python")
    python.write_text('#!/bin/sh\nprintf "%s" "$3" > options.json\n')
    python.chmod(0o700)
    monkeypatch.setenv("MODEL__KERAS_PYTHON", str(python.resolve()))
    monkeypatch.setenv("MODEL__URL", "stub://")
    assert run(["train", "--data", "data", "--out", "run", "--init", f"{NOT_UTF8}.keras"]) == 0
    assert json.loads(Path("options.json").read_text())["init"] == f"{NOT_UTF8}.keras"


def test_a_path_may_have_any_bytes(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a file may be bytes that are not UTF-8."""
    monkeypatch.setenv("MODEL__URL", "stub://")
    image = tmp_path / f"{NOT_UTF8}.jpg"
    image.write_text("no image")
    assert run(["predict", str(image), "--json"]) == 1
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["image"], "not a JPEG" in result["error"]) == (str(image), True)
