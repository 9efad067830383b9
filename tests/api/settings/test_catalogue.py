"""docs/configure.md and .env.example are generated from the settings, and are up to date."""

from __future__ import annotations

import pytest

from api.settings.catalogue import EXAMPLE, PAGE, SettingEntry, list_groups, render_example, render_page
from api.settings.reading.names import list_names


def find_entry(name: str) -> SettingEntry:
    return next(entry for _, _, entries in list_groups() for entry in entries if entry.name == name)


def test_generated_documents_are_current() -> None:
    """The settings in docs/configure.md and .env.example are what `make settings` writes."""
    assert PAGE.read_text() == render_page(PAGE.read_text())
    assert EXAMPLE.read_text() == render_example()


def test_catalogue_has_every_setting() -> None:
    """The catalogue lists each setting once."""
    assert sorted(entry.name for _, _, entries in list_groups() for entry in entries) == sorted(list_names())


def test_settings_are_described() -> None:
    """Each setting has a description in sentences, and each group a title and an introduction."""
    for title, introduction, entries in list_groups():
        assert title
        assert introduction.endswith("."), title
        assert [entry.name for entry in entries if not entry.description.endswith(".")] == []


@pytest.mark.parametrize(
    ("name", "values", "default"),
    [
        ("ENVIRONMENT", "`development` or `production`", "development"),
        ("PORT", "whole number from 0 up to 65535", "8000"),
        ("MODEL__QUEUE_SECONDS", "number above 0 up to 60", "2"),
        ("MODEL__PREPARED_FOLDER", "path", "var/prepared"),
        ("AUTH__ISSUERS", "JSON list", ""),
        ("AUTH__CLIENT_CERTIFICATES", "JSON object", "{}"),
        ("LEDGER__ENABLED", "`true` or `false`", "true"),
        ("LEDGER__SIGNING_KEY", "text, secret", ""),
        ("LIMITS__TOKEN", "rate", "30/minute"),
        ("LIMITS__TRUSTED_PROXIES", "list, separated by commas", ""),
    ],
)
def test_values_and_default_of_a_setting(name: str, values: str, default: str) -> None:
    """The catalogue says which values a setting takes, and its default as it is written in the environment."""
    entry = find_entry(name)
    assert (entry.values, entry.default) == (values, default)
