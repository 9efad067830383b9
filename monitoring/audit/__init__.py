"""The audit log: who did what to whom, in a hash chain that shows any later change."""
