"""``mpidvc ldic``."""
