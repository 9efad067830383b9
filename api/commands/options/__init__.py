"""Values that command-line options take."""
