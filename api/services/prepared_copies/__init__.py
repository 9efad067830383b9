"""Prepared copies of the model: where they are, their build in the background, and the switch to one (ADR 0029)."""
