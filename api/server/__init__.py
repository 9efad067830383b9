"""Running a process: listeners, connections, TLS, memory, workers and shutdown. Knows no route."""
