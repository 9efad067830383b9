"""Reloading certificates while the gateway serves."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from api.server import tls as server_tls
from api.server.tls import open_tls
from api.settings import Settings
from tests.support.certificates import make_authority
from tests.support.polling import wait_until


def test_a_changed_mode_is_a_change_of_the_key(tmp_path: Path) -> None:
    """A changed mode of the key's file causes one reload, because the key may have become readable."""
    certificate, key = make_authority(tmp_path / "pki").issue("CN=gateway")
    tls = open_tls(Settings(tls_certificate=certificate, tls_key=key))
    assert tls is not None
    assert [tls.reload(), tls.reload()] == [False, False]
    path = Path(key)
    before = path.stat().st_ctime_ns

    def is_changed() -> bool:
        path.chmod(0o640)
        return path.stat().st_ctime_ns != before

    wait_until(is_changed)  # the clock of a file system advances in steps of some milliseconds
    assert [tls.reload(), tls.reload(), tls.reload()] == [False, True, False]


def test_a_certificate_renewed_at_the_start_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that is renewed right after the gateway has loaded it is loaded by a later check."""
    authority = make_authority(tmp_path / "pki")
    (certificate, key), renewed = authority.issue("CN=gateway"), authority.issue("CN=renewed")
    load = server_tls.server_context

    def load_and_renew(settings: Settings) -> ssl.SSLContext | None:
        context = load(settings)
        for old, new in zip((certificate, key), renewed, strict=True):
            Path(new).replace(old)
        return context

    with monkeypatch.context() as starting:
        starting.setattr(server_tls, "server_context", load_and_renew)
        tls = open_tls(Settings(tls_certificate=certificate, tls_key=key))
    assert tls is not None
    assert [tls.reload(), tls.reload(), tls.reload()] == [False, True, False]
