"""What is kept of drift: a state for each caller and model, and when which metric was found to differ (ADR 0060)."""
