"""The metrics in groups: each file creates those of one subject."""
