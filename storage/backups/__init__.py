"""Database backups: the rows of all tables in one stream, which is checksummed or, if requested, encrypted."""
