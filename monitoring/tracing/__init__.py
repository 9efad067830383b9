"""Traces of requests: which request belongs to which trace, and the spans of those that are sampled (ADR 0046)."""
