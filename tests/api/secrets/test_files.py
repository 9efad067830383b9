"""Secrets in a folder of files, and how secrets of any provider become settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.errors import SecretsUnavailable, SettingsError
from api.settings import SettingsReader, load_settings
from api.settings.secrets.files import MAX_BYTES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("SECRETS__URL", f"file://{folder}")
    return folder


def test_files_are_named_like_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has the name of a setting in any case, and overrides the environment; its final line end is removed."""
    monkeypatch.setenv("SENTRY_DSN", "https://old@sentry.example/1")
    (folder / "sentry_dsn").write_text("https://new@sentry.example/1\n")
    (folder / "AUTH__SIGNING_KEY").write_text("key\n")
    settings = load_settings()
    assert settings.sentry_dsn is not None
    assert settings.sentry_dsn.get_secret_value() == "https://new@sentry.example/1"
    assert settings.signing_keys() == "key"


def test_a_relative_folder_starts_at_the_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path of the folder is resolved against the home folder."""
    monkeypatch.setenv("SECRETS__URL", "file://secrets")
    (folder / "AUTH__SIGNING_KEY").write_text("key")
    assert load_settings().signing_keys() == "key"


def test_other_files_are_ignored(folder: Path) -> None:
    """Files with other names are ignored, whatever they contain; so are folders and hidden files."""
    (folder / "photo.jpg").write_bytes(b"\xff\xfe")
    (folder / "PORT").write_bytes(b"\xff\xfe")
    (folder / "tls.pem").write_text("x" * (MAX_BYTES + 1))
    (folder / "AUTH__SIGNING_KEY").mkdir()
    (folder / ".LEDGER__SIGNING_KEY").write_text("key")
    settings = load_settings()
    assert (settings.auth.signing_key, settings.ledger.signing_key) == (None, None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"sqlite:///\xff.db", "is not UTF-8 text."), (b"x" * (MAX_BYTES + 1), "is larger than 64 KiB.")],
)
def test_a_file_that_cannot_be_a_setting_is_an_error(folder: Path, content: bytes, problem: str) -> None:
    """A secret's file that cannot be read as text is an error: with the default, another database would be used."""
    (folder / "database_url").write_text("sqlite:///users.db")
    reader = SettingsReader(load_settings(), lambda _: ())
    (folder / "database_url").write_bytes(content)
    for read in (load_settings, reader.read):
        with pytest.raises(SecretsUnavailable) as caught:
            read()
        assert str(caught.value) == f"SECRETS__URL: {folder}/database_url {problem}"


def test_unreadable_files_of_other_programs_are_not_opened(folder: Path) -> None:
    """A file whose name is not that of a secret may be unreadable; an unreadable secret is an error."""
    unreadable = Path("/proc/self/mem")
    (folder / "tls.key").symlink_to(unreadable)
    assert load_settings().redis_url is None
    (folder / "REDIS_URL").symlink_to(unreadable)
    with pytest.raises(SecretsUnavailable, match="cannot be read"):
        load_settings()


def test_a_missing_folder_is_an_error(folder: Path) -> None:
    """A missing folder is an error that names the setting and the folder."""
    folder.rmdir()
    with pytest.raises(
        SecretsUnavailable, match=r"^SECRETS__URL: .*secrets cannot be read: No such file or directory.$"
    ):
        load_settings()


def test_a_link_to_a_new_folder_is_followed(tmp_path: Path, folder: Path) -> None:
    """When Kubernetes replaces the link to the folder with the values, the next read finds the new values."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "AUTH__SIGNING_KEY").write_text(f"key {version}")
    (folder / "..data").symlink_to(tmp_path / "1")
    (folder / "AUTH__SIGNING_KEY").symlink_to("..data/AUTH__SIGNING_KEY")
    reader = SettingsReader(load_settings(), lambda _: ())
    assert reader.read().signing_keys() == "key 1"
    (folder / "..data").unlink()
    (folder / "..data").symlink_to(tmp_path / "2")
    assert reader.read().signing_keys() == "key 2"


def test_nothing_is_validated_again_without_a_change(folder: Path, tmp_path: Path) -> None:
    """While neither a secret nor `.env` changes, a read returns the same settings."""
    (folder / "AUTH__SIGNING_KEY").write_text("key")
    reader = SettingsReader(load_settings(), lambda _: ())
    first = reader.read()
    assert reader.read() is first
    (tmp_path / ".env").write_text("AUTH__DATA_KEY=x\n")
    with pytest.raises(SettingsError, match="AUTH__DATA_KEY"):
        reader.read()


def test_a_change_during_the_start_is_read(tmp_path: Path) -> None:
    """A change to `.env` between loading the settings and the first read is not missed."""
    settings = load_settings()
    (tmp_path / ".env").write_text("SENTRY_DSN=https://new@sentry.example/1\n")
    assert SettingsReader(settings, lambda _: ()).read().sentry_dsn is not None


@pytest.mark.parametrize(
    "url",
    ["env://x", "file://", "aws-sm://", "vault://host/mount", "vault://", "vault+http://vault.example/a/b", "s3://x"],
)
def test_malformed_urls(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A malformed URL is rejected with the accepted forms."""
    monkeypatch.setenv("SECRETS__URL", url)
    with pytest.raises(SettingsError, match=r"^SECRETS__URL: must be env://, file://FOLDER"):
        load_settings()
