"""Logging in with a password and a one-time code, and slowing down guesses."""
