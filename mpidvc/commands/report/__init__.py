"""``mpidvc report``."""
