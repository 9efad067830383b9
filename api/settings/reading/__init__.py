"""Reads the variables, and names the settings and what is wrong with them."""
