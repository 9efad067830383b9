"""The spool: files in which entries wait while the database is unavailable."""
