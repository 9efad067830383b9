"""Backups of databases: the rows of their tables in one stream that is checksummed, and encrypted if requested."""
