"""Data about persons: the images that they allow to be kept, and erasing what is recorded of them."""
