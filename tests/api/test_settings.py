"""Settings: one reader, listed in full, refused in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from api.errors import SettingsError
from api.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def _names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _names(field.annotation, f"{prefix}{name}__".upper())
        else:
            yield f"{prefix}{name}".upper()


def test_example_lists_every_setting() -> None:
    """.env.example names the settings, all of them and no others."""
    listed = re.findall(r"^([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(_names(Settings))


def test_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values in .env.example are the defaults."""
    for name in _names(Settings):
        monkeypatch.delenv(name, raising=False)
    assert Settings(_env_file=EXAMPLE) == Settings(_env_file=None)


def test_example_comments_every_setting() -> None:
    """A comment stands above each setting, or above the group it begins."""
    for block in EXAMPLE.read_text().split("\n\n"):
        assert block.startswith("#"), block


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
def test_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str) -> None:
    """A setting that cannot be used, or that does not exist, is named in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: ") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_errors_do_not_repeat_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A refused value is not repeated: it may be a secret in the wrong place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTH__SIGNING_ALGORITHM", "hunter2hunter2")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_missing_key_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a signing key the gateway says which setting is missing and how to make one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"AUTH__SIGNING_KEY.*atalaya secrets init"):
        Settings(_env_file=None).signing_keys()


def test_documentation_is_off_in_production() -> None:
    """The documentation pages are on in development, off in production, and as set when set."""
    assert Settings(_env_file=None).docs_enabled
    assert not Settings(_env_file=None, environment="production").docs_enabled
    assert Settings(_env_file=None, environment="production", docs=True).docs_enabled


def test_secrets_do_not_print() -> None:
    """The settings' representation shows no key and no database password."""
    settings = Settings(_env_file=None, database_url="postgresql://u:sesame@h/n", auth={"signing_key": "open-sesame"})
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
def test_a_bad_issuer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, issuers: str, named: str) -> None:
    """An outside issuer that is incomplete, insecure, unknown in part or listed twice is named in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTH__ISSUERS", issuers)
    with pytest.raises(SettingsError, match=f"^{named}(__.*)?: ") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
