"""The Open Inference Protocol, version 2, so that clients of KServe and Triton can use the gateway."""
