"""The tensors of an inference response."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from api.errors import BadInferRequest
from api.prediction.request import RecordedPrediction
from api.routes.v2.wire import Tensor
from api.schemas.inference import InferOutput, InferRequest

Results = Sequence[RecordedPrediction]
PROBABILITIES = "probabilities"


class Output(Struct, frozen=True):
    """A tensor that clients may request."""

    datatype: str
    build: Callable[[str, Results], Tensor]


def _build_probabilities(name: str, results: Results) -> Tensor:
    values = np.stack([result.prediction.probabilities for result in results])
    return Tensor(name, "FP32", values.shape, values)


def _build_confidence(name: str, results: Results) -> Tensor:
    values = np.array([result.prediction.confidence for result in results], np.float32)
    return Tensor(name, "FP32", values.shape, values)


def _build_texts(get_text: Callable[[RecordedPrediction], str]) -> Callable[[str, Results], Tensor]:
    return lambda name, results: Tensor(name, "BYTES", [len(results)], [get_text(result) for result in results])


OUTPUTS = {
    PROBABILITIES: Output("FP32", _build_probabilities),
    "label": Output("BYTES", _build_texts(lambda result: result.prediction.label)),
    "confidence": Output("FP32", _build_confidence),
    "reason": Output("BYTES", _build_texts(lambda result: result.prediction.reason or "")),
    "prediction_id": Output("BYTES", _build_texts(lambda result: result.id)),
}


class Choice(Struct, frozen=True):
    """A requested output. With `best`, that many of the most probable classes replace the probabilities."""

    name: str
    is_binary: bool
    best: int

    def build(self, results: Results) -> Tensor:
        return _build_classification(self, results) if self.best else OUTPUTS[self.name].build(self.name, results)


def choose_outputs(document: InferRequest) -> list[Choice]:
    """Return the requested outputs, all if the request names none. Raises BadInferRequest."""
    is_binary = _read_flag(document.parameters.get("binary_data_output", False), "binary_data_output")
    if document.outputs is None:
        return [Choice(name, is_binary, 0) for name in OUTPUTS]
    return [_choose(output, is_binary) for output in document.outputs]


def _choose(output: InferOutput, is_binary: bool) -> Choice:
    if output.name not in OUTPUTS:
        raise BadInferRequest(f"There is no such output. Request one of {', '.join(OUTPUTS)}.")
    best = output.parameters.get("classification", 0)
    if type(best) is not int or best < 0 or (best and output.name != PROBABILITIES):
        raise BadInferRequest(
            f"The parameter classification must be a number of classes, and is for {PROBABILITIES} only."
        )
    return Choice(output.name, _read_flag(output.parameters.get("binary_data", is_binary), "binary_data"), best)


def _read_flag(value: object, name: str) -> bool:
    if type(value) is not bool:
        raise BadInferRequest(f"The parameter {name} must be true or false.")
    return value


def _build_classification(choice: Choice, results: Results) -> Tensor:
    """Return Triton's form of the extension: BYTES [n, classes] with `probability:index:class`, most probable first."""
    count = min(choice.best, len(results[0].prediction.probabilities))
    texts = [text for result in results for text in _list_best(result, count)]
    return Tensor(choice.name, "BYTES", [len(results), count], texts)


def _list_best(result: RecordedPrediction, count: int) -> list[str]:
    probabilities, classes = result.prediction.probabilities, result.prediction.model.classes
    order = np.argsort(-probabilities, kind="stable")[:count].tolist()
    return [f"{probabilities[index]:f}:{index}:{classes[index]}" for index in order]
