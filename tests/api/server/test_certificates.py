"""Reloading certificates while the gateway serves."""

from __future__ import annotations

from pathlib import Path

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
