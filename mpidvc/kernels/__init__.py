"""Compiled kernels (sources in `cython_ext/`)."""
