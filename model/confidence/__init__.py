"""How far a prediction can be trusted: calibration, abstention and prediction sets, all in NumPy."""
