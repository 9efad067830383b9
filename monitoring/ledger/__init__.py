"""The prediction ledger: what was answered to whom, in chains of hashes under signatures (docs/ledger.md)."""
