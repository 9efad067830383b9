"""Explain why the model chose a class, with exact Grad-CAM maps in NumPy."""
