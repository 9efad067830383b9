"""Bytes in, prediction out; and how models are made."""
