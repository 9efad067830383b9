"""An MLServer that serves the shipped network: run_mlserver HTTP_PORT GRPC_PORT METRICS_PORT GRAPH."""

from __future__ import annotations

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor

from tests.support.servers.engines.network import OUTPUTS, SIDES, Network


class LandUse(MLModel):
    async def load(self) -> bool:
        self.network = Network(sys.argv[-1])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = self.network.compute(NumpyCodec.decode_input(payload.inputs[0]))
        wanted = [output.name for output in payload.outputs or ()] or list(outputs)
        encoded = [NumpyCodec.encode_output(name, outputs[name]) for name in wanted]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=encoded)


async def serve() -> None:
    http, grpc, metrics = map(int, sys.argv[1:4])
    settings = Settings(
        host="127.0.0.1",
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        parallel_workers=0,
        use_structured_logging=True,
    )
    model = ModelSettings(
        name="landuse",
        implementation=LandUse,
        parameters=ModelParameters(version="3"),
        inputs=[MetadataTensor(name="image", datatype="UINT8", shape=[-1, *SIDES])],
        outputs=[MetadataTensor(name=name, datatype="FP32", shape=[-1, *shape]) for name, shape in OUTPUTS.items()],
    )
    await MLServer(settings).start([model])


asyncio.run(serve())
