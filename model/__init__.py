"""Make predictions from image bytes, and train, export and evaluate models."""

import os

# ONNX Runtime sends usage data to Microsoft unless this is set before the library is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
