"""The gateway: HTTP and the command line, and the wiring of the other packages."""
