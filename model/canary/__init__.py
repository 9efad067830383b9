"""Compare a candidate with the model in production, and decide whether to promote it or take it back (ADR 0034)."""
