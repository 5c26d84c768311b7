"""``mpidvc demo``."""
