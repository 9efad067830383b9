"""What the ledger knows of a model's quality: labels, and sums over the confidence of all predictions (ADR 0040)."""
