"""Trials of candidates beside the model in production: what the gateway loads, writes, decides and shows (ADR 0039)."""
