"""Databases, and the files and folders that processes share. The lowest package: it defines no tables."""
