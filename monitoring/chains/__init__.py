"""Hash chains: what the audit log and the prediction ledger have in common."""
