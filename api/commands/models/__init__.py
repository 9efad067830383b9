"""The commands that create, measure and try models, without a gateway."""
