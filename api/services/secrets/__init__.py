"""Applies secrets that change while the gateway serves."""
