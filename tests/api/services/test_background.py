"""Tasks that run in the background of a process."""

from __future__ import annotations

import asyncio
import io
import json

from api.services.background import run_in_background
from tests.support.logs import configure_test_logging, restored_logging
from tests.support.polling import wait_until_async


async def fail() -> None:
    raise ZeroDivisionError


async def test_an_error_that_ends_a_task_is_logged_at_once() -> None:
    """The error that ends a background task is logged while the process runs, and is not raised at its end."""
    output = io.StringIO()
    with restored_logging():
        configure_test_logging("info", output)
        async with run_in_background(fail()):
            await wait_until_async(output.getvalue)
    line = json.loads(output.getvalue())
    assert (line["event.name"], line["level"]) == ("background_task_failed", "error")


async def test_a_task_is_cancelled_at_the_end() -> None:
    """A background task is cancelled when its context ends, which waits until it has cleaned up."""
    cleaned = asyncio.Event()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with run_in_background(run()):
        await asyncio.sleep(0)
    assert cleaned.is_set()
