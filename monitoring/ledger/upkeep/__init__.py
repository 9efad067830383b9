"""Removes records: prunes old entries, and erases the content of a person's predictions."""
