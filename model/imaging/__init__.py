"""Decode untrusted images to a model's input, with limits on work and memory."""
