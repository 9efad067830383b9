"""Measurements in the background: metrics that no request changes, and how good the models are on live traffic."""
