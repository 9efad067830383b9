"""Exports: copies of a ledger, or of a part of it, that verify like the original."""
