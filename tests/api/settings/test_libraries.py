"""Messages about optional libraries that are not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from api.errors import SettingsError
from api.settings import home
from api.settings.home import describe_installation
from api.settings.secrets.provider import open_provider
from api.settings.secrets.settings import SecretSettings
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("module", "url", "requirements"),
    [
        ("api.settings.secrets.aws", "aws-sm://prod/atalaya?region=eu-west-1", "aws.txt"),
        ("api.settings.secrets.vault", "vault://vault.example.org/secret/atalaya", "vault.txt"),
    ],
)
def test_the_command_can_be_pasted_anywhere(
    module: str, url: str, requirements: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message names the pip of the gateway's environment and the full path of the file."""
    monkeypatch.setitem(sys.modules, module, None)  # as if its library were not installed
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(
        SettingsError, match=f"`{pip} install --require-hashes -r {ROOT}/requirements/secrets/{requirements}`"
    ):
        open_provider(SecretSettings(url=url))


def test_an_environment_without_pip_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without pip, as in the image, or without the source code, the message has no command, because none would work."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert (
        describe_installation("parquet.txt") == f"Install requirements/parquet.txt of the source code into {tmp_path}."
    )
    monkeypatch.undo()
    monkeypatch.setattr(home, "INSTALLATION", tmp_path)
    assert "`" not in describe_installation("parquet.txt")
