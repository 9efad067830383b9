"""Explanations in the pipeline: recorded, and rejected early if the model cannot give them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.backends.base import Backend
from model.backends.open import open_backend
from model.errors import ExplanationUnavailable, UnknownLabel
from model.explanation.explanation import ExplanationRequest
from model.imaging.input_spec import InputSpec
from tests.api.prediction.transport import OpenTransport
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.model.serving.gated import png

IMAGE = png(200)


@pytest.fixture
def explaining(tmp_path: Path) -> Iterator[Backend]:
    (tmp_path / "tiny").mkdir()
    backend = open_backend(f"onnx://{write_tiny_artefact(tmp_path / 'tiny', InputSpec(16, 16), with_head=True)}")
    yield backend
    backend.close()


async def test_ledger_records_that_an_explanation_was_given(open_transport: OpenTransport, explaining: Backend) -> None:
    """The entry of an explained prediction has the duration of the explain stage; other entries do not."""
    async with open_transport(explaining) as transport:
        recorded = await transport.run(IMAGE, explanation=ExplanationRequest())
        assert recorded.prediction.explanation is not None
        assert (await transport.run(IMAGE)).prediction.explanation is None
    assert [("explain" in facts["timing_us"]) for facts in transport.ledger] == [True, False]
    assert transport.metric("atalaya_prediction_stage_seconds_count", stage="explain") == 1


async def test_model_without_head_rejects_before_the_body_is_read(open_transport: OpenTransport) -> None:
    """A request for an unavailable explanation is rejected and recorded, without an upload or a charge."""
    async with open_transport() as transport:
        with pytest.raises(ExplanationUnavailable):
            await transport.run(IMAGE, explanation=ExplanationRequest())
        with pytest.raises(ExplanationUnavailable):
            await transport.pipeline.dry_run(transport.request(IMAGE, explanation=ExplanationRequest()))
        assert transport.bodies_read == 0
    assert {(status, code) for status, code, _ in transport.outcomes} == {(409, "explanation_unavailable")}
    assert transport.used_requests == 0


async def test_unknown_class_is_rejected_before_the_body_is_read(
    open_transport: OpenTransport, explaining: Backend
) -> None:
    """A request to explain an unknown class is rejected before the body is read, and recorded."""
    async with open_transport(explaining) as transport:
        with pytest.raises(UnknownLabel):
            await transport.run(IMAGE, explanation=ExplanationRequest("forest"))
        assert transport.bodies_read == 0
    assert transport.outcomes == [(422, "unknown_label", 1)]
