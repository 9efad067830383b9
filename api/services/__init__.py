"""The long-lived services of a process in groups, each opened by its own context manager."""
