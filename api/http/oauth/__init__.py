"""What the OAuth endpoints share, and the credentials of all requests."""
