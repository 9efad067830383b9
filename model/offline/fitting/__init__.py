"""Fit a model's temperature, abstention rules and conformal scores on held-out images, in NumPy."""
