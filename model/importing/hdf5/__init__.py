"""A small reader of HDF5 files that checks their structure, and reads nothing but text attributes.

Keras opens HDF5 files with a C library that follows links and data storage into other files and reserves the memory
that a file declares. This reader knows only the structures that Keras writes, and refuses a file with any other. It
follows the HDF5 File Format Specification, version 3.0, and covers both the format that h5py writes by default and the
newer one of HDF5 1.8.
"""
