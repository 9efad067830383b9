"""The peer servers of the benchmark: their packages, predictions, requests and processes."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.load import send_once
from bench.peers.servers import Peer, make_peers, running_peer
from bench.peers.services.classifier import Classifier
from model.backends.open import open_backend
from model.imaging.decode import decode_image
from tests.support.linux import processes
from tests.support.paths import ARTEFACT, FOREST, MODEL_URL, ROOT
from tests.support.polling import wait_until

SHARED = ("msgspec", "numpy", "onnxruntime", "pillow")
# Starts a child that ignores SIGTERM, and responds with its process id and what the server received.
SERVER = """
import http.server, json, os, signal, subprocess, sys
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def respond(self):
        length = int(self.headers.get("Content-Length", 0))
        received = len(self.rfile.read(length))
        body = json.dumps({"child": child.pid, "bytes": received, "model": os.environ["MODEL_FOLDER"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = respond
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def read_pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("peer", ["litserve", "bentoml"])
def test_peers_use_the_versions_of_the_gateway(peer: str) -> None:
    """The peers decode and infer with the same versions of packages as the gateway."""
    own, pinned = read_pins("run.txt"), read_pins(f"peers/{peer}.txt")
    assert peer in pinned
    assert {name: pinned[name] for name in SHARED} == {name: own[name] for name in SHARED}


@pytest.mark.parametrize("image", sorted((ROOT / "samples").glob("*.jpg")), ids=lambda path: path.stem)
def test_peers_predict_what_the_gateway_predicts(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peers' preprocessing and model yield the gateway's probabilities to within 1e-4."""
    monkeypatch.setenv("MODEL_FOLDER", str(ARTEFACT))
    backend = open_backend(MODEL_URL)
    pixels = decode_image(image.read_bytes(), backend.info.input_spec).pixels
    expected = backend.predict(pixels[np.newaxis])[0]
    with Image.open(image) as opened:
        result = Classifier().classify(opened)
    assert list(result["probabilities"]) == list(backend.info.classes)
    assert np.abs(np.array(list(result["probabilities"].values())) - expected).max() < 1e-4
    assert result["label"] == backend.info.classes[expected.argmax()]


def test_requests_carry_the_image() -> None:
    """LitServe's request is a form with the image as a file, and BentoML's is the image itself."""
    litserve, bentoml = make_peers(b"\xff\xd8 image")
    assert litserve.request.startswith(b"POST /predict HTTP/1.1\r\n")
    assert (
        b'name="image"; filename="image.jpg"\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8 image\r\n--'
        in litserve.request
    )
    assert bentoml.request.endswith(b"Content-Length: 8\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8 image")


def test_a_peer_leaves_no_process_behind(tmp_path: Path) -> None:
    """All processes of a peer are counted while it runs, and ended with it, even those that ignore SIGTERM."""
    (tmp_path / "server.py").write_text(SERVER)
    command = ("python", str(tmp_path / "server.py"), "{port}", "{workers}")
    request = make_peers(FOREST.read_bytes())[1].request
    with running_peer(Peer("test", Path(sys.prefix), command, "/", request)) as server:
        response = asyncio.run(send_once(server.port, server.request()))
        assert (response["bytes"], response["model"]) == (FOREST.stat().st_size, str(ARTEFACT))
        child = response["child"]
        assert processes.descendants(server.pid) == [child]
        assert server.megabytes() > processes.proportional_bytes(server.pid) / 1e6 > 1
        assert server.ready_s > 0
    assert not Path(f"/proc/{server.pid}").exists()
    wait_until(lambda: has_ended(child))


def has_ended(pid: int) -> bool:
    """Return whether the process is gone, or a zombie."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
