"""Measure a model's quality on live traffic from labelled predictions, and estimate its accuracy without labels."""
