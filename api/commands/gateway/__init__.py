"""The commands that start a gateway, or look at the one that runs on this machine."""
