"""Compares a candidate with the model in production, and decides whether to promote it or take it back (ADR 0034)."""
