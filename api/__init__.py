"""The front door: the only room that knows HTTP, the command line and the other rooms."""
