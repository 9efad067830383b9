"""Commands that run on a schedule, such as the verification of the ledger: when each last succeeded and failed."""
