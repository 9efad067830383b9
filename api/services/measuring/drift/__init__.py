"""Drift of live traffic: the ledger's entries are compared with the reference of the model that made them."""
