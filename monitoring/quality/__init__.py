"""The quality of models, from the ledger: labels, and sums over the confidence of all predictions (ADR 0040)."""
