"""Encoding requests as Triton's own client does, and parsing the URLs of engines."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import pytest

from model.backends.oip.address import Host, parse_address
from model.backends.oip.wire import encode_request
from model.errors import BackendURLError
from tests.support.paths import ROOT
from tests.support.requirements import missing

PYTHON = ROOT / ".venv-engines" / "triton" / "bin" / "python"
REQUESTS: list[dict[str, Any]] = [
    {"shape": [1, 4, 4, 3], "type": "uint8", "outputs": ["probabilities"], "binary": True, "timeout": None},
    {"shape": [3, 4, 4, 3], "type": "uint8", "outputs": ["probabilities", "pooled"], "binary": True, "timeout": 12345},
    {"shape": [1, 4, 4, 3], "type": "float32", "outputs": ["probabilities", "features"], "binary": True, "timeout": 1},
    {"shape": [1, 4, 4, 3], "type": "uint8", "outputs": ["probabilities"], "binary": False, "timeout": None},
    {"shape": [2, 4, 4, 3], "type": "float32", "outputs": ["probabilities"], "binary": False, "timeout": 7},
]
TRITON_S_CLIENT = """
import json, sys
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import np_to_triton_dtype

for request in json.load(sys.stdin):
    shape, kind, binary = request["shape"], np.dtype(request["type"]), request["binary"]
    values = (np.arange(np.prod(shape)) % 256).astype(kind).reshape(shape)
    image = InferInput("image", shape, np_to_triton_dtype(kind))
    image.set_data_from_numpy(values, binary_data=binary)
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in request["outputs"]]
    body, length = InferenceServerClient.generate_request_body([image], outputs=outputs, timeout=request["timeout"])
    print(body.hex(), length)
"""


def test_bodies_are_those_of_tritonclient() -> None:
    """With and without binary tensors, for both types, the body equals that of tritonclient.http byte for byte."""
    if not PYTHON.exists():
        missing("tritonclient is not installed: make engines")
    run = subprocess.run(
        [PYTHON, "-c", TRITON_S_CLIENT], input=json.dumps(REQUESTS), capture_output=True, text=True, check=True
    )
    for request, line in zip(REQUESTS, run.stdout.splitlines(), strict=True):
        shape = request["shape"]
        values = (np.arange(np.prod(shape)) % 256).astype(request["type"]).reshape(shape)
        body, length = encode_request(
            "image", values, request["outputs"], binary=request["binary"], timeout_us=request["timeout"]
        )
        assert f"{body.hex()} {length}" == line


def test_a_url_names_hosts_model_and_version() -> None:
    """Hosts use the scheme's port unless they name one; IPv6 addresses are in brackets; the version is optional."""
    address = parse_address("oip+https://a.example,b.example:8443,[fd00::1]:9000/landuse/3")
    assert address.hosts == (Host("a.example", 443), Host("b.example", 8443), Host("fd00::1", 9000))
    assert (address.tls, address.model, address.version) == (True, "landuse", "3")
    assert address.path == "/v2/models/landuse/versions/3"
    assert parse_address("oip+http://engine/landuse").hosts == (Host("engine", 80),)


@pytest.mark.parametrize(
    "url",
    [
        "http://engine/m",
        "oip+http://engine",
        "oip+http://engine/",
        "oip+http://engine/m/",
        "oip+http://engine/m/1/2",
        "oip+http:///m",
        "oip+http://a,,b/m",
        "oip+http://engine:0/m",
        "oip+http://engine:x/m",
        "oip+http://engine/m?x=1",
        "oip+http://engine/../m",
    ],
)
def test_a_malformed_url_is_rejected(url: str) -> None:
    """The error for a malformed URL shows the correct form."""
    with pytest.raises(BackendURLError, match="Use oip"):
        parse_address(url)


def test_credentials_in_a_url_are_rejected_and_not_repeated() -> None:
    """The error for a URL with credentials names the setting for the token, and does not contain the password."""
    with pytest.raises(BackendURLError, match="MODEL__ENGINE_TOKEN") as caught:
        parse_address("oip+http://user:s3cret@engine/m")
    assert "s3cret" not in str(caught.value)
