"""What the audit log and the prediction ledger share: hash chains, ids, timestamps and signatures."""
