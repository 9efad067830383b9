"""Stored drift: a state for each caller and model, and the findings of metrics that differ (ADR 0060)."""
