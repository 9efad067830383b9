"""Measurements in the background: metrics that no request changes, and the quality of the models on live traffic."""
