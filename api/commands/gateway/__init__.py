"""The commands that start a gateway, or inspect the one that runs on this machine."""
