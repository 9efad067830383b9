"""Commands that manage users, OAuth clients and API keys."""
