"""A command that does nothing useful in all the ways that the runtime has to stand."""
