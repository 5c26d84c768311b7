"""Numerics on arrays: no files, no MPI, no printing."""
