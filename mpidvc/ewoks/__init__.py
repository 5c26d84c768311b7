"""Tasks of ewoks workflows; they need the extra ``ewoks`` (``pip install mpidvc[ewoks]``)."""
