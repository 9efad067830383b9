"""Convert the exit status of a confined process to an error."""

from __future__ import annotations

import signal

from model.errors import ImportFailed, ImportLimitExceeded, SandboxUnavailable

OUT_OF_RESOURCES = 75
UNAVAILABLE = 76
_MAX_MESSAGE = 1000


def raise_for_status(status: int, log: str) -> None:
    """Raise an error unless the exit status is 0. A negative status is a signal. `log` is the end of the output."""
    if status == 0:
        return
    message = _find_message(log)
    if status == UNAVAILABLE:
        raise SandboxUnavailable(message)
    if status == -signal.SIGXCPU:
        raise ImportLimitExceeded("The import took too much processor time. Import a smaller model, or fewer images.")
    if status == OUT_OF_RESOURCES or status in (-signal.SIGKILL, -signal.SIGABRT, -signal.SIGBUS):
        raise ImportLimitExceeded("The import took too much memory or disk space. Import a smaller model.")
    if status < 0:
        raise ImportFailed(f"The conversion was ended by signal {-status}. The file is damaged or malicious.")
    raise ImportFailed(message)


def _find_message(log: str) -> str:
    """Return the last line that begins with "error: ", or the last line, without control characters."""
    lines = [line for line in log.splitlines() if line.strip()] or ["The conversion failed without a message."]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    text = (errors or lines)[-1]
    return "".join(character if character.isprintable() else "?" for character in text)[:_MAX_MESSAGE]
