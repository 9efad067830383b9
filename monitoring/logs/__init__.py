"""The log: one line for each request and event, in one of several formats, written without blocking the process."""
