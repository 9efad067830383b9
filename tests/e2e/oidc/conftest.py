from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.oidc.provider import OpenIDProvider
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.requirements import install_npm_packages

FOLDER = ROOT / "tests" / "e2e" / "oidc"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the server and its locked packages, installed without running their install scripts."""
    folder = tmp_path_factory.mktemp("oidc")
    install_npm_packages(folder, *(FOLDER / name for name in ("package.json", "package-lock.json", "server.mjs")))
    return folder


@pytest.fixture(scope="session")
def openid_provider(installed: Path) -> Iterator[OpenIDProvider]:
    provider = OpenIDProvider(installed, str(free_port()))
    provider.start()
    yield provider
    provider.stop()


@pytest.fixture
def openid(openid_provider: OpenIDProvider) -> OpenIDProvider:
    """The running provider, which a test may stop."""
    if openid_provider.process is None:
        openid_provider.start()
    return openid_provider
