"""The OpenAPI document that describes the gateway."""
