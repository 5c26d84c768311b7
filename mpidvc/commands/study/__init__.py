"""``mpidvc study``."""
