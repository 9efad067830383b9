"""Predictions on worker threads behind a bounded queue, within a memory budget."""
