"""The long-lived services of a process, grouped; each group is opened by its own context manager."""
