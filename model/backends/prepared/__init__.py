"""Prepared copies of a model: its graph optimised for this machine, and weights that sessions and processes share."""
