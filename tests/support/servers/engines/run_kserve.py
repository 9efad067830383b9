"""The model server of KServe's SDK, with the shipped network: run_kserve HTTP_PORT GRPC_PORT METRICS_PORT GRAPH."""

from __future__ import annotations

import sys
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid

from tests.support.servers.engines.network import OUTPUTS, SIDES, Network


class LandUse(Model):
    def load(self) -> bool:
        self.network = Network(sys.argv[-1])
        self.ready = True
        return self.ready

    async def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "image", "datatype": "UINT8", "shape": [-1, *SIDES]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": "FP32", "shape": [-1, *shape]} for name, shape in OUTPUTS.items()]

    def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        outputs = self.network.compute(payload.inputs[0].as_numpy())
        wanted = [output.name for output in payload.request_outputs or ()] or list(outputs)
        encoded = []
        for name in wanted:
            output = InferOutput(name, list(outputs[name].shape), "FP32")
            output.set_data_from_numpy(outputs[name], binary_data=payload.use_binary_outputs)
            encoded.append(output)
        return InferResponse(generate_uuid(), self.name, encoded)


model = LandUse("landuse")
model.load()
ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), enable_grpc=False, workers=1).start([model])
