"""Read the structure of image files without decoding pixels, limit the work it causes, and keep only what pixels need.

Decoders receive files without metadata, further frames and unknown parts, so none of these is ever decompressed.
"""
