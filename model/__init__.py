"""Bytes in, prediction out; and how models are made."""

import os

# ONNX Runtime's builds send Microsoft data about their use, unless this is set before the library is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
