"""Read the structure of image files without decoding pixels, limit the decoder's work, and keep only the needed parts.

Decoders receive files without metadata, further frames and unknown parts, so these are never decompressed.
"""
