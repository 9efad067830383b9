"""Settings: documented completely, and rejected with one line that names the setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from api.errors import SettingsError
from api.settings import Settings, load_settings, sqlite_file
from api.settings.reading.names import list_names
from model.signing.keys import RELEASE_KEY, encode_public_key
from storage.engine import sqlite_path
from tests.support.paths import ROOT

EXAMPLE = ROOT / ".env.example"


def test_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The values in .env.example are the defaults."""
    for name in list_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(EXAMPLE.read_text())
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTH__SIGNING_ALGORITHM", "none"),
        ("PORT", "eighty"),
        ("AUTH__SIGNIN_KEY", "x"),
        ("AUTH__DATA_KEY", "hunter2"),
        ("LIMITS__PREDICT", "many"),
    ],
)
def test_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str) -> None:
    """An invalid or unknown setting is rejected with one line that names it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: ") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_errors_do_not_contain_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error does not contain the rejected value, which may be a misplaced secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTH__SIGNING_ALGORITHM", "hunter2hunter2")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_missing_key_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a signing key the error names the setting and the command that generates a key."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"AUTH__SIGNING_KEY.*atalaya secrets init"):
        Settings().signing_keys()


def test_documentation_is_off_in_production() -> None:
    """The documentation pages are on in development and off in production, unless DOCS decides."""
    assert Settings().docs_enabled
    assert not Settings(environment="production").docs_enabled
    assert Settings(environment="production", docs=True).docs_enabled


def test_secrets_are_not_printed() -> None:
    """The representation of the settings contains neither keys nor the database password."""
    settings = Settings(database_url="postgresql://u:sesame@h/n", auth={"signing_key": "open-sesame"})
    assert "sesame" not in repr(settings)


@pytest.mark.parametrize(
    ("issuers", "named"),
    [
        ("[{", "AUTH__ISSUERS"),
        ("{}", "AUTH__ISSUERS"),
        ('[{"audience": "a"}]', "AUTH__ISSUERS__0__ISSUER"),
        ('[{"issuer": "http://id.example", "audience": "a"}]', "AUTH__ISSUERS__0__ISSUER"),
        ('[{"issuer": "https://id.example", "audience": ""}]', "AUTH__ISSUERS__0__AUDIENCE"),
        (
            '[{"issuer": "https://id.example", "audience": "a", "algorithms": ["HS256"]}]',
            "AUTH__ISSUERS__0__ALGORITHMS",
        ),
        ('[{"issuer": "https://id.example", "audience": "a", "scopes": {"x": "all"}}]', "AUTH__ISSUERS__0__SCOPES"),
        ('[{"issuer": "https://id.example", "audience": "a", "role": "admin"}]', "AUTH__ISSUERS__0__ROLE"),
        (
            '[{"issuer": "https://id.example", "audience": "a"}, {"issuer": "https://id.example", "audience": "b"}]',
            "AUTH__ISSUERS",
        ),
    ],
)
def test_invalid_issuer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, issuers: str, named: str) -> None:
    """An external issuer that is incomplete, insecure, listed twice or has an unknown field is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTH__ISSUERS", issuers)
    with pytest.raises(SettingsError, match=f"^{named}(__.*)?: ") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_production_requires_a_signed_artefact() -> None:
    """Production trusts the release key, unless a key is configured; development trusts only a configured one."""
    own = encode_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
    trusted = {
        (environment, key): Settings(environment=environment, model={"verify_key": key}).artefact_key()
        for environment in ("development", "production")
        for key in (None, own)
    }
    assert {case: key and encode_public_key(key) for case, key in trusted.items()} == {
        ("development", None): None,
        ("development", own): own,
        ("production", None): RELEASE_KEY,
        ("production", own): own,
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [("a%20b.db", "a b.db"), ("a b.db", "a b.db"), ("50%25%3F.db", "50%?.db"), ("año/%C3%B1.db", "año/ñ.db")],
)
def test_the_path_of_sqlite_is_decoded_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, name: str
) -> None:
    """Settings and engines read %XX in the path of an SQLite file alike, in a home whose own name contains it too."""
    home = tmp_path / "100%25 ?"
    home.mkdir()
    monkeypatch.setenv("ATALAYA_HOME", str(home))
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    url = load_settings().database_url.get_secret_value()
    assert sqlite_file(url) == sqlite_path(url) == home / name
    assert sqlite_file(f"sqlite:///{path}") == Path(name)


def test_parameters_of_sqlite_are_still_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of an SQLite file is encoded without its parameters, which are rejected."""
    monkeypatch.setenv("DATABASE_URL", "sqlite:///users.db?mode=ro")
    with pytest.raises(SettingsError, match="SQLite takes none"):
        load_settings()
