"""Import an untrusted model file: check its contents against an allow-list, then convert it in a sandbox.

The checks are pure Python, except for the records that hold their results, and create no object from the file. Only
the sandboxed process opens the file with Keras.
"""
