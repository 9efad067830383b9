"""Why the model chose a class: exact Grad-CAM maps, in NumPy."""
