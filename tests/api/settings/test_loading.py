"""Reading the settings: from the environment and `.env`, with every problem reported at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from api.errors import SettingsError
from api.settings import Settings, load_settings
from api.settings.reading.names import find_mistyped
from api.settings.reading.variables import read_env_file_state
from tests.support.polling import wait_until


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ATALAYA_HOME", str(tmp_path))


def test_environment_overrides_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment variable, even in lower case, overrides `.env`; an empty one does not."""
    (tmp_path / ".env").write_text("PORT=1\nHOST=0.0.0.0\nMODEL__WORKERS=2\nLOG_LEVEL=error\n")
    for name, value in {"PORT": "3", "HOST": "", "model__workers": "4"}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.port, settings.host, settings.model.workers, settings.log_level) == (3, "0.0.0.0", 4, "error")  # noqa: S104


def test_empty_variables_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable, or one of white space, means the default."""
    for name in ("WEB_CONCURRENCY", "METRICS_PORT", "AUTH__ISSUERS", "MODEL__WORKERS", "DATABASE_URL"):
        monkeypatch.setenv(name, " \n")
    assert load_settings() == Settings()


def test_white_space_of_secret_stores_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line end that a secret store adds to a value is not part of the value."""
    url = "postgresql://ana:sesame@db/land"
    for name, value in {"DATABASE_URL": f"{url}\n", "PORT": " 81\r\n", "AUTH__AUDIENCE": "land\n"}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.database_url.get_secret_value(), settings.port, settings.auth.audience) == (url, 81, "land")


@pytest.mark.parametrize("name", ["AUTH", "MODEL", "LIMITS", "LEDGER", "MONITORING"])
def test_names_of_groups_may_mean_something_else(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable that a platform gives the name of a group is ignored."""
    monkeypatch.setenv(name, "basic")
    assert load_settings() == Settings()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_file_is_utf8(tmp_path: Path, encoding: str) -> None:
    """`.env` is UTF-8, with or without a byte order mark."""
    (tmp_path / ".env").write_text("AUTH__AUDIENCE=flächen\n", encoding=encoding)
    assert load_settings().auth.audience == "flächen"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_file_in_another_encoding_is_rejected(tmp_path: Path, encoding: str) -> None:
    """A `.env` in another encoding is rejected with one line that says which one is needed."""
    (tmp_path / ".env").write_text("AUTH__AUDIENCE=flächen\n", encoding=encoding)
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8 text"):
        load_settings()


def test_every_problem_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invalid settings and problems with valid ones are reported together, one line for each setting."""
    invalid = {"PORT": "eighty", "AUTH__ISSUER": "land.example", "LIMITS__TOKEN": "many", "LEDGER__DAYS": "1"}
    for name, value in {**invalid, "LOG_LEVEL": "debug"}.items():
        monkeypatch.setenv(name, value)

    def find_problems(settings: Settings) -> list[str]:
        assert settings.log_level == "debug"
        return ["AUTH__SIGNING_KEY is not set.", "METRICS_PORT must differ from PORT."]

    with pytest.raises(SettingsError) as caught:
        load_settings(find_problems)
    names = [problem.split()[0].rstrip(":") for problem in caught.value.problems]
    # PORT is invalid, so it is unknown whether METRICS_PORT differs from it.
    assert names == [*invalid, "AUTH__SIGNING_KEY"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LIMITS_PREDICT", "LIMITS__PREDICT"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("PROT", "PORT"),
        ("AUTH_SIGNING_KEY", "AUTH__SIGNING_KEY"),
        ("AUTH_SIGNIN_KEY", "AUTH__SIGNING_KEY"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("ALLOWED_HOST", "ALLOWED_HOSTS"),
        ("RAILWAY__PUBLIC_DOMAIN", "RAILWAY_PUBLIC_DOMAIN"),
    ],
)
def test_mistyped_names_are_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, meant: str
) -> None:
    """A name that resembles a setting is ignored with a warning, in the environment and in `.env`."""
    expected = f"warning: {name} is not a setting and is ignored. Did you mean {meant}?\n"
    monkeypatch.setenv(name, "x")
    load_settings()
    assert capsys.readouterr().err == expected
    monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(f"{name}=x\n")
    load_settings()
    assert capsys.readouterr().err == expected


def test_other_names_cause_no_warning() -> None:
    """Variables of other programs and platforms cause no warning, nor does a similar name beside the setting."""
    others = (
        "PORTS HOSTS HOSTNAME DOC PATH HOME LANG USER SHELL MODE AUTHOR DATABASE_USER DATABASE_NAME"
        " DATABASE_PUBLIC_URL DATABASE_PRIVATE_URL DATABASE_URL_UNPOOLED DIRECT_URL POSTGRES_URL REDIS_PRIVATE_URL"
        " REDIS_HOST SENTRY_ENVIRONMENT SENTRY_RELEASE RAILWAY_TCP_PROXY_DOMAIN RAILWAY_STATIC_URL RAILWAY_REPLICA_ID"
        " MODEL_PORT MODEL_SERVICE_HOST AUTH_SERVICE_PORT LEDGER_PORT_8000_TCP KUBERNETES_PORT TLS_CERT_FILE"
        " SSL_CERT_FILE WEB_MEMORY ATALAYA_HOME PYTHONUNBUFFERED NODE_ENV ENV APP_ENVIRONMENT ENVIRONMENTS_ROOT DYNO"
    )
    assert find_mistyped(dict.fromkeys(others.split(), "x")) == []
    assert find_mistyped({"DATABASE_URL": "x", "DATABASE_URI": "x"}) == []


def test_json_in_the_name_of_a_group_is_noticed() -> None:
    """JSON in a variable with the bare name of a group causes a warning that names the right form."""
    (warning,) = find_mistyped({"AUTH": '{"audience": "land"}', "MODEL": "gpt"})
    assert warning.startswith("AUTH is ignored: ")
    assert "AUTH__" in warning


def test_a_changed_mode_is_a_change_of_the_file(tmp_path: Path) -> None:
    """A changed mode counts as a change of `.env`, because the file may have become readable."""
    file = tmp_path / ".env"
    file.write_text("PORT=1\n")
    before = read_env_file_state()
    assert read_env_file_state() == before

    def is_changed() -> bool:
        file.chmod(0o640)
        return read_env_file_state() != before

    wait_until(is_changed)  # the clock of a file system advances in steps of some milliseconds
