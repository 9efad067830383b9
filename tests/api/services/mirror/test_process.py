"""What the gateway does with the output of the pulling process."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from api.errors import SettingsError
from api.services.background.activity import Activity
from api.services.mirror import process
from api.services.mirror.__main__ import pull
from api.services.mirror.problem import read_problem
from api.services.mirror.process import Reports, keep_pulling, pull_first, run_puller
from api.settings import Settings
from auth.tokens.jws import generate_signing_key
from model.registry.errors import InvalidName
from model.registry.files import FileRegistry
from model.registry.mlflow.mirror import Mirror, Pull
from monitoring.chains.signing import new_private_key
from monitoring.metrics import Metrics
from tests.model.registry.versions import MODEL, write_version
from tests.support.polling import wait_until_async

WRITES_MUCH = """
import sys
for number in range(5000):
    print("warning", number, "x" * 600, file=sys.stderr)
print("y" * 3_000_000, file=sys.stderr)
print('{"moved": {}}', flush=True)
print('{"moved": {"' + "z" * 200_000 + '": "1.0"}}', flush=True)
sys.exit("error: the last word")
"""


async def test_a_process_that_writes_many_errors_does_not_wait() -> None:
    """Errors that would fill a pipe are read: a few truncated lines are logged, and the last one is the result.

    A very long report is read, too.
    """
    registry = CollectorRegistry()
    with capture_logs() as logs:
        async with asyncio.timeout(120):
            ended = await run_puller(Reports(Metrics(registry)), [sys.executable, "-c", WRITES_MUCH])
    assert ended == "error: the last word"
    assert registry.get_sample_value("atalaya_registry_pulls_total", {"outcome": "unchanged"}) == 1
    assert registry.get_sample_value("atalaya_registry_pulls_total", {"outcome": "moved"}) == 1
    lines = [entry["text"] for entry in logs if entry["event"] == "registry_puller_output"]
    assert 20 <= len(lines) <= 40  # the clock may pass from one minute to the next
    assert max(map(len, lines)) == 500


def test_only_aliases_that_the_gateway_serves_count_as_failures() -> None:
    """If an alias that the gateway does not serve cannot be pulled, that is logged once and is not a failure."""
    registry = CollectorRegistry()
    refused = {"_prod": {"code": "invalid_name", "reason": "'_prod' is not a name."}}
    reports = Reports(Metrics(registry))
    with capture_logs() as logs:
        for _ in range(2):
            reports.on_poll({"moved": {}, "refused": refused})
        reports.on_poll({"moved": {}, "refused": {}, "code": "artefact_unsigned", "reason": "It is not signed."})
    assert [(entry["event"], entry["code"]) for entry in logs] == [
        ("registry_alias_not_pulled", "invalid_name"),
        ("registry_not_pulled", "artefact_unsigned"),
    ]
    looks = {
        outcome: registry.get_sample_value("atalaya_registry_pulls_total", {"outcome": outcome})
        for outcome in ("unchanged", "failed")
    }
    assert looks == {"unchanged": 2, "failed": 1}


@pytest.mark.parametrize(("served", "codes"), [(["production"], (None, ["_prod"])), (["_prod"], ("invalid_name", []))])
def test_a_pull_separates_served_aliases_from_others(served: list[str], codes: tuple[str | None, list[str]]) -> None:
    """A pull reports the problem of a served alias as its own, and lists other rejected aliases separately."""
    refused = {"_prod": InvalidName("'_prod' is not a name.")}
    mirror = SimpleNamespace(pull=lambda: Pull({}, refused))
    look = pull(cast(Mirror, mirror), served)
    assert (look.get("code"), list(look["refused"])) == codes


def test_a_pull_reports_a_limited_number_of_rejections() -> None:
    """Of the rejected aliases that are not served, the first 20 are reported, with 300 characters of each reason."""
    refused = {f"alias-{number:03}": InvalidName("x" * 1000) for number in reversed(range(400))}
    mirror = SimpleNamespace(pull=lambda: Pull({}, {**refused, "production": InvalidName("x" * 1000)}))
    look = pull(cast(Mirror, mirror), ["production"])
    assert list(look["refused"]) == [f"alias-{number:03}" for number in range(20)]
    assert {len(each["reason"]) for each in look["refused"].values()} == {300}
    assert (look["code"], len(look["reason"])) == ("invalid_name", 1000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a gateway that mirrors an MLflow server into `tmp_path`/mirror."""
    return Settings(
        database_url=f"sqlite:///{tmp_path}/gateway.db",
        auth={"signing_key": generate_signing_key("ES256")},
        ledger={"signing_key": new_private_key()},
        model={
            "registry": "mlflow+http://127.0.0.1:1",
            "url": f"registry://{MODEL}@production",
            "mirror_folder": tmp_path / "mirror",
        },
    )


@pytest.mark.parametrize("output", ["'{'", "'x' * 3_000_000"], ids=["not JSON", "too long"])
async def test_a_process_whose_output_cannot_be_read_is_started_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """A process with unreadable output counts as a failure with a code for `/readyz`, and is started again."""
    registry = CollectorRegistry()
    command = [sys.executable, "-c", f"print({output})"]
    monkeypatch.setattr(process, "RESTART_S", 0.01)
    monkeypatch.setattr(process, "run_puller", partial(run_puller, command=command))
    async with keep_pulling(settings, Metrics(registry), Activity(None)):
        await wait_until_async(
            lambda: (registry.get_sample_value("atalaya_registry_pulls_total", {"outcome": "failed"}) or 0) >= 2
        )
    assert read_problem(settings) == "registry_unavailable"


def test_a_first_pull_that_takes_too_long_needs_only_the_served_alias(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If the first pull takes too long, the start fails unless the served alias is already mirrored."""
    registry = FileRegistry(tmp_path / "pulled")
    registry.add(write_version(tmp_path, "1.0"))
    registry.move_aliases(MODEL, {"production": "1.0"}, who="mlflow", why="moved there")
    monkeypatch.setattr(process, "FIRST_PULL_LIMIT_S", 0.1)
    monkeypatch.setattr(process, "_COMMAND", ["sleep", "600"])
    with pytest.raises(SettingsError, match="nothing was pulled"):
        pull_first(settings)
    (tmp_path / "pulled").rename(tmp_path / "mirror")
    pull_first(settings)
    assert FileRegistry(tmp_path / "mirror").read(MODEL).aliases == {"production": "1.0"}
