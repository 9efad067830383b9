"""The JSON bodies of requests and responses, as Pydantic models."""
