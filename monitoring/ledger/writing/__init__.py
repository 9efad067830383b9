"""Writes the ledger: entries with signed heads, and the checkpoints that name the heads."""
