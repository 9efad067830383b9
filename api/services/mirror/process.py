"""Runs the pulling process: one per gateway, restarted when it ends, supervised by the worker that started it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

from api.errors import SettingsError
from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.mirror.problem import write_problem
from api.services.registry import open_registry
from api.settings import Settings
from model.registry.errors import RegistryError, RegistryUnavailable
from monitoring.metrics import Metrics
from storage.folders import try_lock_folder

RESTART_S = 5.0
"""The seconds that another worker, or this one, waits before it starts the process again."""

PULLER_BYTES = 80 << 20
"""The memory that the process takes. Measured: 90 MB, of which 25 MB are library pages."""

FIRST_PULL_LIMIT_S = 600.0
_MAX_POLL_BYTES = 1 << 20  # the limit of a poll's line of JSON, enough for thousands of aliases that move at once
_MAX_LINE_LENGTH = 500
_LINES_PER_MINUTE = 20
_OUTCOMES = ("unchanged", "moved", "failed")
_POLICY = "the versions in the mirror stay in service"
_COMMAND = (sys.executable, "-m", "api.services.mirror")

log = structlog.get_logger("atalaya.registry")


def pull_first(settings: Settings) -> None:
    """Fill the mirror if the alias in MODEL__URL names no version in it yet. Raises SettingsError.

    Later starts do not depend on the MLflow server.
    """
    if settings.model.mlflow_url is None or _is_mirrored(settings):
        return
    try:
        # With its input closed, the process ends after one poll.
        done = subprocess.run(
            _COMMAND, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=FIRST_PULL_LIMIT_S
        )
        problem = json.loads(done.stdout).get("reason") if done.returncode == 0 else done.stderr.strip()
    except subprocess.TimeoutExpired:  # perhaps while it copied the version of another alias
        problem = f"nothing was pulled within {FIRST_PULL_LIMIT_S:.0f} s."
    if problem and not _is_mirrored(settings):
        raise SettingsError(f"MODEL__REGISTRY: {problem.removeprefix('error: ')}")


@asynccontextmanager
async def keep_pulling(settings: Settings, metrics: Metrics, activity: Activity) -> AsyncIterator[None]:
    """Keep the mirror of an MLflow server current, if the settings name one and no other worker does."""
    if not _is_needed(settings):
        yield
        return
    for outcome in _OUTCOMES:
        metrics.registry_pulls.labels(outcome)
    reports = Reports(metrics)
    async with run_in_background(activity.run_while_active(lambda: _keep_running(settings, reports))):
        yield


def count_puller_bytes(settings: Settings) -> int:
    """Return the memory of the pulling process, which counts towards the gateway's limit; 0 if there is none."""
    return PULLER_BYTES if _is_needed(settings) else 0


def _is_needed(settings: Settings) -> bool:
    return settings.model.mlflow_url is not None and settings.model.reference is not None


def _is_mirrored(settings: Settings) -> bool:
    reference = settings.model.reference
    if reference is None:
        return True
    try:
        open_registry(settings).read(reference.model).find_alias(reference.alias)
    except RegistryError:
        return False
    return True


async def _keep_running(settings: Settings, reports: Reports) -> None:
    """Run the process whenever no other worker does. The kernel releases the lock of a worker that is killed."""
    folder = settings.model.mirror_folder
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with try_lock_folder(folder, ".puller") as held:
                if held:
                    await _run_and_report(settings, reports)
        except OSError as error:
            reports.on_poll({"code": RegistryUnavailable.code, "reason": f"{folder}: {error.strerror}"})
        await asyncio.sleep(RESTART_S)


async def _run_and_report(settings: Settings, reports: Reports) -> None:
    """Run the process until it ends, and report that as a problem."""
    try:
        ended = await run_puller(reports)
    except Exception as error:  # any error that its output causes: the process must be restarted
        ended = f"its output cannot be used: {error!r}"[:_MAX_LINE_LENGTH]
    reports.on_poll({"code": RegistryUnavailable.code, "reason": ended})
    write_problem(settings, RegistryUnavailable.code)


async def run_puller(reports: Reports, command: Sequence[str] = _COMMAND) -> str:
    """Run the pulling process until it ends, and return how it ended.

    It runs in its own session, so that Ctrl-C reaches only the gateway.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, limit=_MAX_POLL_BYTES, start_new_session=True
    )
    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018  (pipes)
    try:
        async with asyncio.TaskGroup() as group:
            # If no task read this pipe, it would fill up and block the process.
            errors = group.create_task(_read_lines(process.stderr, reports.on_error_line))
            async for line in process.stdout:
                reports.on_poll(json.loads(line))
        return errors.result() or f"it ended with status {await process.wait()}"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _read_lines(stream: asyncio.StreamReader, on_line: Callable[[str], object]) -> str:
    """Call `on_line` with each line that is not empty, and return the last one."""
    last = ""
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # the line is longer than the stream's buffer, and was discarded
            continue
        if not line:
            return last
        if text := line.decode(errors="replace").strip()[:_MAX_LINE_LENGTH]:
            last = text
            on_line(text)


class Reports:
    """Counts the outcome of each poll of the MLflow server, and logs changes.

    It also logs what the process writes to standard error, at most _LINES_PER_MINUTE.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._problem: str | None = None
        self._refused: dict[str, str] = {}
        self._minute, self._lines = 0, 0

    def on_error_line(self, text: str) -> None:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._lines = minute, 0
        self._lines += 1
        if self._lines <= _LINES_PER_MINUTE:
            log.warning("registry_puller_output", text=text)

    def on_poll(self, result: dict[str, Any]) -> None:
        problem, moved = result.get("code"), result.get("moved")
        if moved:
            log.info("registry_pulled", moved=moved)
        self._log_refusals(result.get("refused", {}))
        if problem and problem != self._problem:
            log.warning("registry_not_pulled", code=problem, reason=result["reason"], policy=_POLICY)
        elif self._problem and not problem:
            log.info("registry_followed_again", after=self._problem)
        self._problem = str(problem) if problem else None
        outcome = "failed" if problem else "moved" if moved else "unchanged"
        self._metrics.registry_pulls.labels(outcome).inc()

    def _log_refusals(self, refused: dict[str, dict[str, str]]) -> None:
        """For each alias that the gateway does not serve, log once why it cannot be followed."""
        for alias, each in refused.items():
            if self._refused.get(alias) != each["code"]:
                log.warning("registry_alias_not_pulled", alias=alias, code=each["code"], reason=each["reason"])
        self._refused = {alias: each["code"] for alias, each in refused.items()}
