"""Which libraries an import loads: startup time and memory depend on them."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("fastapi", "starlette", "sqlalchemy", "numpy", "PIL", "onnxruntime", "uvicorn")
RUN = "import contextlib, io\nfrom api.cli import run\nwith contextlib.redirect_stderr(io.StringIO()):\n    run({})"


def loaded_by(code: str, *candidates: str) -> set[str]:
    """Run `code` in a fresh interpreter; returns the `candidates` that it has imported."""
    report = "import sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True, timeout=60
    )
    return set(candidates) & set(done.stderr.split())


def test_settings_load_no_framework() -> None:
    """The settings load no web framework, database, image or settings library."""
    assert loaded_by("import api.settings", *HEAVY, "pydantic_settings") == set()


@pytest.mark.parametrize("arguments", [["--help"], [], ["nope"]])
def test_help_loads_no_framework(arguments: list[str]) -> None:
    """The list of commands and usage errors load no web framework, database or image library."""
    assert loaded_by(RUN.format(arguments), *HEAVY) == set()


def test_allocator_is_configured_before_numpy() -> None:
    """Importing `serve` and its processes loads neither NumPy, nor the application, nor a database library."""
    code = "import api.commands.gateway.serve, api.commands.gateway.processes"
    assert loaded_by(code, "numpy", "PIL", "onnxruntime", "sqlalchemy", "fastapi") == set()


@pytest.mark.parametrize(
    "module", ["sentry_sdk", "opentelemetry.sdk", "httpx", "alembic", "pyarrow", "redis", "onnxruntime"]
)
def test_application_loads_optional_libraries_on_use(module: str) -> None:
    """The application loads the library of an optional feature only if that feature is used."""
    assert loaded_by("import api.app", module) == set()


def test_serving_loads_no_terminal_output() -> None:
    """A serving process does not spend start-up time and memory on coloured output and progress bars."""
    code = f"{RUN.format(['serve', '--port', 'x'])}\nimport api.app, api.commands.database, api.server.process"
    assert loaded_by(code, "rich", "pygments") == set()


def test_serving_loads_no_orm() -> None:
    """A serving process does not spend start-up time and memory on SQLAlchemy's ORM, which it does not use."""
    code = "import storage.without_orm, api.app, api.commands.database, api.server.process, aiosqlite"
    assert loaded_by(code, "sqlalchemy.orm") == set()


def test_serving_loads_no_unused_parts_of_fastapi_and_pydantic() -> None:
    """A serving process loads neither pydantic's old API nor a validator of e-mail addresses."""
    code = "import storage.without_orm, api.commands.gateway.lean_fastapi, api.app"
    assert loaded_by(code, "pydantic.v1.main", "email_validator") == set()


def test_application_loads_no_foreign_dialect() -> None:
    """Importing the application does not load SQLAlchemy's dialect for PostgreSQL."""
    assert loaded_by("import api.app", "sqlalchemy.dialects.postgresql") == set()


def test_the_orm_remains_available() -> None:
    """Code that needs SQLAlchemy's ORM, such as a library, can import it after `storage.without_orm`."""
    code = "import storage.without_orm\nfrom sqlalchemy.orm import Session\nimport sqlalchemy.ext.asyncio.session"
    assert loaded_by(code, "sqlalchemy.orm") == {"sqlalchemy.orm"}


def test_progress_bars_work_after_the_logs_were_configured() -> None:
    """A command can draw a progress bar with rich, although the logging configuration avoids rich."""
    drawing = "from api.commands.output import progress_bar\nwith progress_bar('x', 1): pass"
    code = f"import monitoring.logs.configuration\n{drawing}"
    assert loaded_by(code, "rich.progress") == {"rich.progress"}


def test_ledger_commands_load_no_model() -> None:
    """Importing the ledger commands loads neither the model's libraries nor pyarrow."""
    assert loaded_by("import api.commands.ledger", "numpy", "PIL", "onnxruntime", "pyarrow") == set()


def test_judge_of_candidates_loads_no_numpy() -> None:
    """A command can show the verdict on a candidate without loading NumPy or a framework."""
    assert loaded_by("import model.canary.report, model.canary.assignment, model.canary.pairing", *HEAVY) == set()
