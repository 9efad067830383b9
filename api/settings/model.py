"""The settings MODEL__…"""

from __future__ import annotations

from pydantic import Field

from api.settings.fields import SettingsGroup


class ModelSettings(SettingsGroup):
    url: str = "onnx://artifacts/efficientnetb0-v1.0"
    workers: int | None = Field(None, ge=1, le=64)
    queue_limit: int = Field(64, ge=0, le=10_000)
    queue_seconds: float = Field(2.0, gt=0, le=60)
    deadline_seconds: float = Field(30.0, gt=0, le=300)
    memory_megabytes: int | None = Field(None, ge=1, le=1_000_000)
    keras_python: str | None = None
