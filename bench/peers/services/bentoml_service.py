"""A BentoML service as its documentation shows it for an image as the body of a request; WORKERS sets its workers."""

from __future__ import annotations

import os
from typing import Any

import bentoml
from PIL import Image

from bench.peers.services.classifier import Classifier


@bentoml.service(workers=int(os.environ["WORKERS"]))
class LandUse:
    """`POST /classify` takes an image, and returns a JSON document."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api
    def classify(self, image: Image.Image, /) -> dict[str, Any]:
        return self.classifier.classify(image)
