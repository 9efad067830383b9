"""A simulated year, reported with the real commands: the four reports say what happened and what to do."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import time_machine
from PIL import Image

from api.cli import run
from api.commands.database import command_actor, open_migrated_engine, run_with_accounts
from api.settings import Settings, load_settings
from auth.accounts.service import AccountService
from auth.principal import Role
from model.imaging.input_spec import InputSpec
from model.registry.files import FileRegistry
from monitoring.chains.signing import new_private_key
from tests.api.commands.reporting.year import (
    PHOTOGRAPHS_FROM,
    SECOND_MODEL_FROM,
    SENSOR_FROM,
    YEAR,
    Callers,
    Year,
    build_year_reference,
)
from tests.model.backends.tiny_onnx import CLASSES, write_tiny_artefact
from tests.model.registry.versions import MODEL
from tests.support.requirements import install_npm_packages
from tests.support.servers.browser import running_chromium

pytestmark = pytest.mark.long
AXE = Path(__file__).parent / "axe"
QUARTER_ENDS = {
    "2025Q1": date(YEAR, 4, 1),
    "2025Q2": date(YEAR, 7, 1),
    "2025Q3": date(YEAR, 10, 1),
    "2025Q4": date(YEAR + 1, 1, 1),
}


@dataclass(frozen=True)
class Written:
    """One report: its text without the markup, its recommendations by rule, and those about drift by caller."""

    path: Path
    text: str
    rules: Mapping[str, Any]
    drifting: Mapping[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("year")


@pytest.fixture(scope="module")
def settings(folder: Path) -> Iterator[Settings]:
    """An empty SQLite database, a registry with two versions of a model, and images to evaluate it on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATALAYA_HOME", str(folder))
        patch.setenv("DATABASE_URL", f"sqlite:///{folder}/year.db")
        patch.setenv("LEDGER__SIGNING_KEY", new_private_key())
        patch.setenv("MODEL__REGISTRY", f"file://{folder}/registry")
        patch.setenv("MODEL__URL", f"registry://{MODEL}@production")
        patch.setenv("MODEL__PREPARE", "false")
        patch.setenv("MODEL__VALIDATION_DATA", str(_write_images(folder / "validation")))
        patch.setenv("COST__VCPUS", "1")
        patch.setenv("COST__MEMORY_GB", "0.5")
        references = folder / "artifacts" / "references"
        references.mkdir(parents=True)
        (references / "tiny.json").write_text(json.dumps(build_year_reference()))
        registry = FileRegistry(folder / "registry")
        for version in ("1.0", "1.1"):
            artefact = folder / f"artefact-{version}"
            artefact.mkdir()
            registry.add(write_tiny_artefact(artefact, InputSpec(24, 24), version=version))
        yield load_settings()


@pytest.fixture(scope="module")
def reports(settings: Settings, folder: Path) -> Mapping[str, Written]:
    """The four reports in English, each written on the morning after its quarter."""
    with time_machine.travel(datetime(YEAR, 1, 1, 1, tzinfo=UTC)):
        callers = run_with_accounts(settings, _add_callers, create=True)
        _run("models", "promote", MODEL, "1.0", "--why", "the first model")
        _run("evaluate", "--served")
    written = {}
    with open_migrated_engine(settings) as engine, closing(Year(settings, engine, callers)) as year:
        for quarter, end in QUARTER_ENDS.items():
            if quarter == "2025Q3":
                with time_machine.travel(datetime(YEAR, 7, 2, 6, tzinfo=UTC)):
                    _run("evaluate", "--served")  # as the second report recommends
                year.play(SECOND_MODEL_FROM)
                with time_machine.travel(datetime.combine(SECOND_MODEL_FROM, time(6), UTC)):
                    _run("models", "promote", MODEL, "1.1", "--why", "retrained on summer images")
                    _run("evaluate", "--served")
            year.play(end)
            with time_machine.travel(datetime.combine(end, time(6), UTC)):
                assert run(["drift"]) == 1  # images of winter and summer differ from those of the whole year
                written[quarter] = _write_report(folder, quarter)
    return written


def _write_images(folder: Path) -> Path:
    """Write twelve images of the model's classes, one of them with a wrong label."""
    for position, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            seen = 2 if (position, number) == (0, 3) else position
            colour = tuple(100 + 3 * (channel == seen) + number for channel in range(3))
            Image.new("RGB", (24, 24), colour).save(folder / name / f"{number}.png")
    return folder


async def _add_callers(accounts: AccountService) -> Callers:
    names = ("maps", "drone", "press")
    return Callers(*[(await accounts.add(name, Role.CLIENT, "correct horse battery")).id for name in names])


def _write_report(folder: Path, quarter: str) -> Written:
    path = folder / f"{quarter}.html"
    output = _run("report", "--quarter", quarter, "--out", str(path), "--json")
    if quarter == "2025Q3":
        _run("report", "--quarter", quarter, "--out", str(folder / "2025Q3.es.html"), "--lang", "es")
    found = json.loads(output)["recommendations"]
    drifting = {each["caller"]: each for each in found if each["rule"] == "drift"}
    rules = {each.pop("rule"): each for each in found}
    text = html.unescape(re.sub(r"<[^>]+>", " ", path.read_text().partition("<main>")[2]))
    return Written(path, re.sub(r"\s+", " ", text), rules, drifting)


def _run(*arguments: str) -> str:
    """Run a command that must succeed; return its standard output."""
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        status = run(list(arguments))
    assert status == 0, errors.getvalue()
    return output.getvalue()


def test_first_quarter_had_an_outage(reports: Mapping[str, Written]) -> None:
    """The day on which every other request failed is an incident, and the report asks for its cause."""
    report = reports["2025Q1"]
    assert report.rules["incident_days"] == {"days": 1, "day": "2025-02-11", "percent": 50.0, "limit": 1}
    assert "2025-02-11 12 of 24 requests ended with a server error" in report.text
    assert "503 ledger_unavailable 12" in report.text
    assert f"{MODEL} production none 1.0 {command_actor()} the first model" in report.text
    assert "not_aerial" not in report.rules


def test_second_quarter_had_an_update(reports: Mapping[str, Written]) -> None:
    """The report says which library changed and when, and asks for an evaluation, since there was none."""
    report = reports["2025Q2"]
    change = {"day": "2025-05-10", "name": "onnxruntime", "before": "1.26.0", "after": "1.27.0"}
    assert report.rules["runtime_changed"] == change
    assert "onnxruntime 1.26.0 1.27.0" in report.text
    assert "No request failed in this quarter." in report.text
    assert report.rules.keys().isdisjoint({"incident_days", "not_aerial"})


def test_third_quarter_had_a_new_model_and_a_new_sensor(reports: Mapping[str, Written]) -> None:
    """The report names both versions with their accuracy, who promoted the second and why, and the new drift."""
    report = reports["2025Q3"]
    assert re.search(rf"production 1\.0 1\.1 {command_actor()} retrained on summer images", report.text)
    for version, truth in (("1.0", 93), ("1.1", 97)):
        row = re.search(rf"{MODEL}-v{version} \d+ \d+ \S+ \((\S+)-(\S+)\)", report.text)
        assert row is not None
        assert float(row[1]) < truth < float(row[2])
    assert {"image_size", "sharpness"} <= set(report.drifting["drone"]["metrics"])
    assert 0 <= (date.fromisoformat(report.drifting["drone"]["day"]) - SENSOR_FROM).days <= 7
    assert re.search(rf"drone {MODEL}-v1\.0 image size \w+ 2025-07-0\d \S+ 2025-08-14 18:30:00", report.text)
    assert re.search(rf"drone {MODEL}-v1\.1 image size \w+ 2025-08-1\d \S+ ongoing", report.text)
    assert report.rules.keys().isdisjoint({"runtime_changed", "undecided_version"})


def test_fourth_quarter_had_photographs(reports: Mapping[str, Written]) -> None:
    """The report names the caller whose images are not aerial, and no other."""
    report = reports["2025Q4"]
    assert report.rules["not_aerial"] == {"caller": "press", "percent": 100.0, "images": 1104}
    assert report.rules["brightness"]["dark_month"] == "2025-12"
    assert "press" not in report.drifting  # labels of photographs would not help
    for metric in ("score of the gate", "image size"):
        found = re.search(rf"press {MODEL}-v1\.1 {metric} \w+ (\S+) \S+ ongoing", report.text)
        assert found is not None
        assert 0 <= (date.fromisoformat(found[1]) - PHOTOGRAPHS_FROM).days <= 7
    assert f"{MODEL}-v1.0" not in report.text
    assert "press 1104 100.0 0.0" in report.text


def test_evaluations_of_the_served_model(reports: Mapping[str, Written]) -> None:
    """A report lists each evaluation with its interval and comparison, or says that there was none."""
    first, second, third, fourth = (reports[quarter].text for quarter in QUARTER_ENDS)
    result = "12 91.7 (64.6-98.5)"
    assert re.search(rf"2025-01-01 {MODEL}-v1\.0 {re.escape(result)} \S+ \S+ - no", first)
    for day, version in (("2025-07-02", "1.0"), ("2025-08-15", "1.1")):
        assert re.search(rf"{day} {MODEL}-v{version} {re.escape(result)} \S+ \S+ -0 \+0 \(p = 1\) no", third)
    for text in (second, fourth):
        assert "The served model was not evaluated in this quarter" in text


def test_every_quarter_has_its_cost(reports: Mapping[str, Written]) -> None:
    """Each report recommends that the gateway sleep when idle, but not a smaller machine, which would lack memory."""
    for report in reports.values():
        assert report.rules["sleep"]["percent"] > 40
        assert "0.5 vCPU, 0.25 GB 12.67 2.0 100.0 no" in report.text
        assert "smaller_machine" not in report.rules


def test_missing_data_is_named(reports: Mapping[str, Written]) -> None:
    """The report recommends backups when none was recorded, and says that no library or processor changed."""
    report = reports["2025Q1"]
    assert "no_backup" in report.rules
    assert "No library or processor that predictions depend on changed." in report.text


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The accessibility checker's script."""
    folder = tmp_path_factory.mktemp("axe")
    install_npm_packages(folder, AXE / "package.json", AXE / "package-lock.json")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.mark.parametrize("name", ["2025Q3.html", "2025Q3.es.html"])
def test_pages_are_accessible(reports: Mapping[str, Written], folder: Path, axe: str, name: str) -> None:
    """axe finds no violation on the page, which Chromium shows without an error or any request."""
    assert reports
    problems: list[str] = []
    with running_chromium() as browser:
        page = browser.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: problems.append(request.url))
        page.goto((folder / name).as_uri())
        printed = page.pdf(prefer_css_page_size=True)
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 688, "height": 1000})  # of A4 without its margins
        widths = page.eval_on_selector_all("tbody th", "cells => cells.map(each => each.offsetWidth)")
        # The page's policy forbids scripts, including the checker's.
        checked = browser.new_context(bypass_csp=True).new_page()
        checked.goto((folder / name).as_uri())
        checked.evaluate(axe)
        violations = checked.evaluate(
            "async () => (await axe.run()).violations.map(each => each.id + each.nodes[0].html)"
        )
    assert violations == []
    assert problems == [(folder / name).as_uri()]
    assert printed.startswith(b"%PDF")
    assert min(widths) > 50  # so that names are not broken after each letter
