"""Trials of candidate models: the counts, to which all processes add, and the verdicts."""
