"""Routes whose refusals are recorded in the ledger, like their predictions."""
