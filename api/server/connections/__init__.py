"""Connections: how they are accepted, and the bounds on each before the application sees a request."""
