"""Retraining a served model, and when that is due."""
