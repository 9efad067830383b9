"""The audit log: a tamper-evident hash chain of security events."""
