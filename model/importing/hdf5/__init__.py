"""A small reader that checks the structure of HDF5 files, and reads only text attributes.

Keras opens HDF5 files with a C library that follows links and data storage into other files and reserves the memory
that a file declares. This reader supports only the structures that Keras writes, and rejects files with any other. It
follows the HDF5 File Format Specification, version 3.0, and covers both the format that h5py writes by default and the
newer one of HDF5 1.8.
"""
