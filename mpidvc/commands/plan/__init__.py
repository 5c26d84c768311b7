"""``mpidvc plan``."""
