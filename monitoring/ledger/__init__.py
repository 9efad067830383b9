"""The prediction ledger: every request on record, in signed hash chains."""
