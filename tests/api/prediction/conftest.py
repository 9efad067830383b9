"""Prediction pipelines over a real ledger, real quotas and the stub back end."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from api.settings import Settings
from model.backends.base import Backend
from model.backends.stub import StubBackend
from tests.api.prediction.transport import InProcessTransport, OpenTransport, open_in_process


@pytest.fixture
def open_transport(settings: Settings, within_one_month: None) -> OpenTransport:  # noqa: ARG001  (quotas are counted)
    """Open a pipeline with changed settings of the model."""

    def open_changed(
        backend: Backend | None = None, quota: int | None = None, **changes: Any
    ) -> AbstractAsyncContextManager[InProcessTransport]:
        changed = settings.model_copy(update={"model": settings.model.model_copy(update=changes)})
        return open_in_process(changed, backend or StubBackend(), quota)

    return open_changed
