"""Import FastAPI without the parts that take time and memory, and that this gateway uses rarely or never.

- The validators of the OpenAPI document are built with the first document instead of at import.
- pydantic.v1 cannot be imported by this process: FastAPI would only look for its models, and this project has none.
- email-validator, which only the development environment has, is hidden during the import.

A server imports this module before any other that uses FastAPI.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from pydantic import BaseModel


def _import_fastapi(modules: dict[str, Any]) -> None:
    if "fastapi" in modules:
        return
    modules["pydantic.v1"] = None  # this makes its import fail
    modules["email_validator"] = None
    BaseModel.model_config["defer_build"] = True
    try:
        import_module("fastapi")
    finally:
        del modules["email_validator"]
        del BaseModel.model_config["defer_build"]


_import_fastapi(sys.modules)
