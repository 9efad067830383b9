"""Import of a model file that nobody vouches for: an allow-list of its contents, then a conversion in a sandbox.

The checks use the standard library alone and create no object from the file. Only the sandboxed process opens the file
with Keras.
"""
