"""The audit log: a hash chain of security events, in which any later change shows."""
