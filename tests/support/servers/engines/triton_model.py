"""The model in Triton's Python back end, which looks for this class and its methods."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import triton_python_backend_utils as triton

from tests.support.servers.engines.network import Network


class TritonPythonModel:
    def initialize(self, _: Any) -> None:
        self.network = Network(os.environ["NETWORK"])

    def execute(self, requests: Iterable[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        outputs = self.network.compute(triton.get_input_tensor_by_name(request, "image").as_numpy())
        wanted = request.requested_output_names()
        return triton.InferenceResponse([triton.Tensor(name, outputs[name]) for name in wanted])
