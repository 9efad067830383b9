"""The trials of candidates: counts that all processes add to, and verdicts."""
