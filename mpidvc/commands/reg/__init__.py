"""``mpidvc reg``."""
