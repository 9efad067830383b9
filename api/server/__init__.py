"""Runs a process: listeners, connections, TLS, memory, workers and shutdown. Contains no routes."""
