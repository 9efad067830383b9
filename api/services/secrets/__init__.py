"""Secrets that change while the gateway serves, and the services that use them."""
