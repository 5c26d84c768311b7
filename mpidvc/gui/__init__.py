"""The window of ``mpidvc ereg``: its model, which knows no Qt, and its widgets, which know nothing else."""
