"""The commands that make, measure and try models, without a gateway."""
