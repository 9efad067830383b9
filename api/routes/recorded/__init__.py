"""Routes whose refusals are in the ledger, like the predictions that they make."""
