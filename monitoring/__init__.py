"""What happened: metrics, logs, error reports, the audit log and the prediction ledger."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

MIGRATIONS = Path(__file__).with_name("migrations")


def _import_structlog(modules: dict[str, Any]) -> None:
    """Import structlog without rich, which only colours tracebacks, and takes 4 MB of memory and 60 ms to import."""
    if "rich" in modules:
        return
    modules["rich"] = None  # this makes `import rich` fail
    try:
        import structlog  # noqa: F401
    finally:
        del modules["rich"]


_import_structlog(sys.modules)
