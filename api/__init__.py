"""The gateway: HTTP and the command line, and the wiring of the other packages."""

SERVING_COMMANDS = ("serve", "demo")
"""The commands that serve requests. Defined here, because this module is loaded before any command."""
