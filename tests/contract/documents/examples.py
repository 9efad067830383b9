"""Run the examples of a guide in order, and compare what they print with what the guide shows.

Ids, secrets, times and numbers differ from run to run. A value that the guide shows is replaced with the one that this
run has printed in its place: `REFRESH_TOKEN=atr_EMdk5u…` assigns the refresh token that was really issued.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.contract.documents.markdown import Step
from tests.support.gateway import Gateway
from tests.support.paths import BIN, ROOT
from tests.support.polling import PATIENCE_S

_ASSIGNMENT = re.compile(r"(\w+)=(\S+)")
_ASSIGNED_OUTPUT = re.compile(r'(\w+)="\$\(.*\)"', re.DOTALL)
_STABLE = {
    "error",
    "error_description",
    "code",
    "status",
    "title",
    "detail",
    "scope",
    "label",
    "name",
    "active",
    "role",
}
_WRITTEN_LATER = {"last_used_at"}  # null until the gateway writes it, a few seconds after the use
_STATUS = re.compile(r"[1-5]\d\d")
_OMITTED = "…"


@dataclass
class Examples:
    """Simulates a reader of a guide who types its commands in the project's folder while a gateway runs."""

    gateway: Gateway
    home: Path
    variables: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)  # as the guide shows them -> as this run has printed them

    def run(self, step: Step) -> None:
        """Run one command. Raises AssertionError if its exit status or what it prints is not as the guide shows."""
        if assignment := _ASSIGNMENT.fullmatch(step.command):
            name, shown = assignment.groups()
            self.variables[name] = self.values.get(shown, shown.replace(":8000", f":{self.gateway.port}"))
            assert _OMITTED not in self.variables[name], f"nothing above prints {shown}"
            return
        assigned = _ASSIGNED_OUTPUT.fullmatch(step.command)
        command = f'{step.command} && printf "\\n%s" "${assigned[1]}"' if assigned else step.command
        status, printed = self._execute(command)
        assert (status == 0) == ("error: " not in step.output), (step.command, printed)
        if assigned:
            self.variables[assigned[1]] = printed.rpartition("\n")[2]  # standard error comes before it
        else:
            self._compare(step, printed)

    def _execute(self, command: str) -> tuple[int, str]:
        (self.home / ".curlrc").write_text("silent\n")  # curl prints progress into a pipe, but not on a terminal
        path = os.pathsep.join((str(self.home), str(BIN), os.environ["PATH"]))
        environment = {**self.gateway.environment, **self.variables, "PATH": path, "HOME": str(self.home)}
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        return done.returncode, done.stdout.replace("\r\n", "\n")

    def _compare(self, step: Step, printed: str) -> None:
        shown_head, shown = _split(step.output)
        head, body = _split(printed)
        where = f"{step.command}\nprinted:\n{printed}"
        missing = {_normalise(line) for line in shown_head} - {_normalise(line) for line in head}
        assert not missing, (missing, where)
        if shown.startswith("{") and "\n" not in shown:
            self._compare_json(_parse(shown), json.loads(body), where)
        else:
            assert _normalise(body) == _normalise(shown), where
            self.values |= dict(zip(shown.split(), body.split(), strict=False))

    def _compare_json(self, shown: Any, value: Any, where: str, name: str = "") -> None:
        if shown == _OMITTED or name in _WRITTEN_LATER:
            return
        assert type(shown) is type(value) or isinstance(shown, int | float), (name, shown, value, where)
        if isinstance(shown, dict):
            assert list(shown) == list(value), (name, where)
            for key in shown:
                self._compare_json(shown[key], value[key], where, key)
        elif isinstance(shown, list):
            for each, other in zip(shown, value, strict=_OMITTED not in shown):
                self._compare_json(each, other, where, name)
        elif isinstance(shown, str):
            assert shown == value or name not in _STABLE, (name, shown, value, where)
            self.values[shown] = value


def _split(text: str) -> tuple[list[str], str]:
    """Return the lines of an HTTP response's head, without those that the guide omits, and the rest."""
    text = text.strip("\n")
    if not text.startswith("HTTP/"):
        return [], text
    head, _, body = text.partition("\n\n")
    return [line for line in head.splitlines() if line != _OMITTED], body


def _normalise(text: str) -> str:
    """Drop what differs from run to run: numbers except status codes, ids, secrets, times and the width of columns."""
    words = text.replace("─", "").split()
    return " ".join(word for word in words if not re.search(r"\d|…", word) or _STATUS.fullmatch(word))


def _parse(shown: str) -> Any:
    """Parse a JSON document in which the guide has omitted parts."""
    text = shown.replace("[…]", f'"{_OMITTED}"').replace("{…}", f'"{_OMITTED}"').replace(",…]", f',"{_OMITTED}"]')
    return json.loads(text)
