"""Retrains a served model, and decides when that is due."""
