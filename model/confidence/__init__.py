"""Assess how reliable a prediction is: calibration, abstention and prediction sets, in NumPy."""
