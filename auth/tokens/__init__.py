"""Signed access tokens: the gateway's own and those of external issuers."""
