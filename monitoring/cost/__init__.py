"""What predictions cost: measured resources, sums over the recorded predictions, and prices (ADR 0065)."""
