"""The prediction ledger: a record of every request, in signed hash chains."""
