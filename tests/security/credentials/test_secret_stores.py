"""T63 and T64: which settings the store at SECRETS__URL can change, and what its errors reveal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.errors import SettingsError
from api.settings import load_settings
from tests.support.servers.vault import VaultDouble, running_vault

CREDENTIAL, SECRET = "hvs.credential-of-the-gateway", "sesame-sesame-sesame"


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultDouble]:
    with running_vault() as double:
        double.tokens = {CREDENTIAL}
        monkeypatch.setenv("SECRETS__URL", double.url)
        monkeypatch.setenv("SECRETS__VAULT_CREDENTIAL", CREDENTIAL)
        yield double


def test_the_store_sets_only_secrets(vault: VaultDouble) -> None:
    """Settings that are not secrets, and the settings of the store itself, are ignored if the store contains them."""
    vault.secrets = {
        "AUTH__ISSUERS": '[{"issuer": "https://evil.example", "audience": "x"}]',
        "AUTH__SIGNING_KEY_FILE": "/tmp/evil.pem",  # noqa: S108
        "LIMITS__TRUSTED_PROXIES": "0.0.0.0/0",
        "MODEL__URL": "onnx://evil",
        "ENVIRONMENT": "development",
        "SECRETS__URL": "file:///tmp",
        "SECRETS__VAULT_CREDENTIAL": "evil",
        "PATH": "/tmp",  # noqa: S108
        "AUTH__DATA_KEY": "A" * 43 + "=",
    }
    settings = load_settings()
    defaults = type(settings)()
    assert settings.auth.data_key is not None
    assert (settings.auth.issuers, settings.auth.signing_key_file) == ((), None)
    assert (settings.limits, settings.model, settings.environment) == (
        defaults.limits,
        defaults.model,
        defaults.environment,
    )
    assert settings.secrets.url == vault.url


def test_a_plain_connection_to_vault_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway does not send its credential to another machine without TLS."""
    monkeypatch.setenv("SECRETS__URL", "vault+http://vault.example/secret/atalaya")
    with pytest.raises(SettingsError, match=r"vault\+http:// is for a Vault on this machine"):
        load_settings()


@pytest.mark.parametrize("fault", ["denied", "absent", "malformed", "away"])
def test_errors_contain_no_secret(
    vault: VaultDouble, fault: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither an error nor a log line contains the credential or a stored value, even at the debug level."""
    caplog.set_level(logging.DEBUG)
    vault.secrets = {"AUTH__DATA_KEY": SECRET, "DATABASE_URL": f"mysql://ana:{SECRET}@db/land"}
    if fault == "denied":
        vault.tokens.clear()
    elif fault == "absent":
        vault.secrets = {}
    elif fault == "away":
        vault.shutdown()
        vault.server_close()
    with pytest.raises(SettingsError) as caught:
        load_settings()
    text = f"{caught.value}{caught.value!r}{caplog.text}{''.join(capfd.readouterr())}"
    assert [value for value in (SECRET, CREDENTIAL) if value in text] == []


def test_a_lost_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a folder that cannot be read names only the setting, the folder and the reason."""
    monkeypatch.setenv("SECRETS__URL", f"file://{tmp_path}/absent")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"SECRETS__URL: {tmp_path}/absent cannot be read: No such file or directory."
