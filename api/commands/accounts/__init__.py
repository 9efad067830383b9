"""Commands for those who may use the gateway: users, OAuth clients and API keys."""
