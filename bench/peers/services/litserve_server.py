"""A LitServe server as its documentation shows it for an uploaded file and a machine without a GPU.

python -m bench.peers.services.litserve_server PORT WORKERS
"""

import sys
from typing import Any

import litserve
from fastapi import Request
from PIL import Image

from bench.peers.services.classifier import Classifier


class LandUseAPI(litserve.LitAPI):
    """Takes the part `image` of a form, and returns a JSON document."""

    def setup(self, device: str) -> None:
        self.classifier = Classifier()

    # LitServe reads the annotation: it must be the class itself, so this module does not postpone annotations.
    def decode_request(self, request: Request) -> Image.Image:
        return Image.open(request["image"].file)

    def predict(self, x: Image.Image) -> dict[str, Any]:
        return self.classifier.classify(x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(LandUseAPI(), accelerator="cpu", workers_per_device=int(sys.argv[2]))
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
