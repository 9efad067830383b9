"""Decode untrusted images to the pixels of a model, within bounds on work and memory."""
