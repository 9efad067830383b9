"""The Open Inference Protocol, version 2: KServe's and Triton's, so that their clients can use the gateway."""
