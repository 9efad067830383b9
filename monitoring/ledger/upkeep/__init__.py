"""Removing records: pruning old entries, and erasing what a person's predictions contained."""
