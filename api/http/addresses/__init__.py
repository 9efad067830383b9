"""Addresses of requests: the client behind trusted proxies, and the host names that the gateway serves."""
