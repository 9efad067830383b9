"""What was found about candidates: counts that all processes add to, and the verdicts."""
