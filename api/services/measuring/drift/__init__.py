"""Drift of live traffic: compares the ledger's entries with the reference of the model that made them."""
