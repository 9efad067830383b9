"""Verifies a ledger: every entry and every signed statement, and that nothing is missing or was added."""
