"""Inference engines that speak the Open Inference Protocol v2 over HTTP, such as Triton (ADR 0067)."""
