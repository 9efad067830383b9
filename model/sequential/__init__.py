"""Sequential tests, which stay valid no matter how often the results are checked."""
