"""The log: one line for each request and event, in one of several forms, written without blocking the process."""
