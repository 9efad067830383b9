"""`atalaya backup` and `atalaya restore`: the database, the registry of models and, if requested, the keys."""
