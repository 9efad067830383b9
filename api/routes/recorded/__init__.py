"""Routes whose rejections are recorded in the ledger, like their predictions."""
