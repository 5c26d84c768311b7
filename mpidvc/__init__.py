"""Digital image and volume correlation with MPI."""

__version__ = "0.1.0"
