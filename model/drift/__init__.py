"""Detect when images and predictions differ from those that a model was evaluated on (ADR 0060)."""
