"""Tell schemathesis how to generate valid requests, and which requests to leave out."""

from __future__ import annotations

import io
import os
from base64 import b64encode
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image

from model.classes import UC_MERCED_CLASSES


def encoded(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "green").save(buffer, name)
    return buffer.getvalue()


for name in ("JPEG", "PNG", "WEBP", "TIFF"):
    schemathesis.openapi.media_type(f"image/{name.lower()}", st.just(encoded(name)))
schemathesis.openapi.format("ip-network", st.ip_addresses().map(str))
schemathesis.openapi.format("password", st.uuids().map(str))
PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=64)
schemathesis.openapi.format("printable", PRINTABLE)
schemathesis.openapi.format("class", st.sampled_from(UC_MERCED_CLASSES))


# The models of the registry and the one in service: half of all requests name them.
MODELS = {"name": ("tiny",), "model": ("stub",), "version": ("1.0", "1.1"), "alias": ("production", "candidate")}
INFER = {
    "inputs": [
        {
            "name": "image",
            "datatype": "BYTES",
            "shape": [1],
            "data": [b64encode(encoded("PNG")).decode()],
        }
    ]
}


def names_models(context: Any) -> bool:
    return bool(context.operation.path.startswith(("/v1/models/", "/v2/models/")))


@schemathesis.hook
def flatmap_path_parameters(context: Any, parameters: dict[str, Any] | None) -> st.SearchStrategy[Any]:
    """Name a model, version and alias that exist in half of the requests about models."""
    if parameters is None or not names_models(context):
        return st.just(parameters)
    known = {name: st.sampled_from(values) for name, values in MODELS.items() if name in parameters}
    return st.just(parameters) | st.fixed_dictionaries({**{k: st.just(v) for k, v in parameters.items()}, **known})


@schemathesis.hook
def flatmap_body(context: Any, body: Any) -> st.SearchStrategy[Any]:
    """In half of the requests, promote a version that exists or send a valid image."""
    if not names_models(context) or not isinstance(body, dict):
        return st.just(body)
    if context.operation.path.endswith("/infer"):
        return st.just(body) | st.just(INFER)
    return st.just(body) | st.sampled_from(MODELS["version"]).map(lambda version: {"version": version, "why": "a test"})


@schemathesis.hook
def filter_case(_: Any, case: Any) -> bool:
    """Leave out changes of the caller's own user, which end the login, and cases with an unknown header.

    HTTP permits unknown headers, but schemathesis expects an error for them if the operation has a documented header.
    """
    is_own = (case.path_parameters or {}).get("user_id") == os.environ["ATALAYA_TEST_SUBJECT"]
    return not is_own and "x-schemathesis-unknown-property" not in (case.headers or {})
