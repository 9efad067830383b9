"""The example configurations for collectors agree with the lines and files of the log."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.chains.timestamps import format_timestamp
from monitoring.logs.files import LogFiles
from monitoring.logs.formats import LogFormat, make_render, name_attributes
from tests.support.paths import ROOT

FOLDER = ROOT / "deploy" / "logs"
HOME = Path("/var/lib/atalaya")  # of the systemd service
FIELD = re.compile(r"\.(?:\"([\w.]+)\"|(\w+))")


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def make_line(log_format: LogFormat = LogFormat.OTEL) -> dict[str, Any]:
    time = format_timestamp(datetime.now(UTC))
    event = {"event": "request", "logger": "atalaya.access", "http.response.status_code": 200}
    line: dict[str, Any] = json.loads(
        make_render(log_format)(name_attributes(event, "info", time, is_own=True, service="atalaya"))
    )
    return line


def list_paths() -> dict[str, str]:
    """The files that each configuration reads."""
    return {
        "vector": load("vector.yaml")["sources"]["files"]["include"][0],
        "fluent-bit": load("fluent-bit.yaml")["pipeline"]["inputs"][0]["path"],
        "datadog": load("datadog.yaml")["logs"][0]["path"],
    }


@pytest.mark.parametrize("collector", ["vector", "fluent-bit", "datadog"])
def test_collectors_read_the_files_of_the_service(collector: str) -> None:
    """Each collector reads all files that LOGS__FILE=var/log/atalaya.log makes in the home of the systemd service."""
    files = LogFiles(HOME / "var/log/atalaya.log", 14, 1_000_000)
    for number in (0, 1, 12):
        assert fnmatch(str(files.name(date(2026, 11, 26), number)), list_paths()[collector])


def test_vector_uses_fields_that_lines_have() -> None:
    """Vector's transforms read only fields that every line has, and are connected to its sources and its sink."""
    vector = load("vector.yaml")
    program = vector["transforms"]["atalaya"]["source"]
    read = {quoted or plain for line in program.splitlines() for quoted, plain in FIELD.findall(line.partition("=")[2])}
    assert read == {"timestamp", "level", "service.name"}
    assert read <= set(make_line())
    known = {*vector["sources"], *vector["transforms"]}
    assert {
        name for part in (*vector["transforms"].values(), *vector["sinks"].values()) for name in part["inputs"]
    } <= known


def test_fluent_bit_parses_the_time() -> None:
    """Fluent Bit's parser names the field with the time, and its format."""
    (parser,) = load("fluent-bit.yaml")["parsers"]
    form = parser["time_format"].replace("%L", "%f")  # Fluent Bit's fraction of a second
    assert datetime.strptime(make_line()[parser["time_key"]], form).year >= 2026  # noqa: DTZ007  (Z is in the format)
    assert load("fluent-bit.yaml")["pipeline"]["inputs"][0]["parser"] == parser["name"]


def test_datadog_gets_its_reserved_attributes() -> None:
    """The lines for Datadog have the attributes that it reserves, and the agent is configured for the same service."""
    line = make_line(LogFormat.DATADOG)
    assert {"timestamp", "status", "message", "service"} <= set(line)
    assert load("datadog.yaml")["logs"][0]["service"] == line["service"]
