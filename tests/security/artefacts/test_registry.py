"""Only the owner of the registry chooses what a running gateway serves: T54."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from model.registry.artefact import MANIFEST
from tests.model.registry.registered_models import ALIAS, NAME, ModelRegistry
from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until

Attack = Callable[[ModelRegistry], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    registry = ModelRegistry(tmp_path_factory.mktemp("registry"))
    for version in ("1.0", "1.1"):
        registry.add(version)
    registry.promote("1.0")
    return registry


@pytest.fixture(scope="module")
def gateway(registry: ModelRegistry) -> Iterator[Gateway]:
    with running_gateway(None, MODEL__WORKERS="1", **registry.settings) as gateway:
        yield gateway


@contextmanager
def make_writable_for_all(registry: ModelRegistry) -> Iterator[None]:
    """Make the folder writable for every user, and move the alias."""
    home = registry.folder / NAME
    home.chmod(0o777)
    replace_state(registry, {ALIAS: "1.1"})
    yield
    replace_state(registry, {ALIAS: "1.0"})
    home.chmod(0o755)


@contextmanager
def change_manifest(registry: ModelRegistry) -> Iterator[None]:
    """Change the calibration in the manifest of a listed version, and move the alias to it."""
    manifest = registry.folder / NAME / "versions" / "1.1" / MANIFEST
    before = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(before), "calibration": {"temperature": 9.0}}))
    registry.promote("1.1")
    yield
    registry.promote("1.0")
    manifest.write_text(before)


@contextmanager
def leave_the_folder(registry: ModelRegistry) -> Iterator[None]:
    """Make the alias name a path outside the folder."""
    replace_state(registry, {ALIAS: "../../outside"})
    yield
    replace_state(registry, {ALIAS: "1.0"})


def replace_state(registry: ModelRegistry, aliases: dict[str, str]) -> None:
    state: Path = registry.folder / NAME / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "aliases": aliases}))


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (make_writable_for_all, "registry_unavailable"),
        (change_manifest, "digest_mismatch"),
        (leave_the_folder, "registry_unavailable"),
    ],
)
def test_a_manipulated_registry_leaves_the_version_in_service(
    gateway: Gateway, registry: ModelRegistry, attack: Attack, code: str
) -> None:
    """The gateway keeps serving its version, shows why, and follows the registry again once it is repaired."""

    def show_state() -> str:
        state: str = gateway.get("/readyz").json()["checks"]["model"]
        return state

    with attack(registry):
        wait_until(lambda: show_state() == code, message=gateway.log)
        response = gateway.client().post("/v1/predictions", files={"file": FOREST.read_bytes()})
        assert response.json()["model"]["version"] == "1.0"
    wait_until(lambda: show_state() == "ok", message=gateway.log)
