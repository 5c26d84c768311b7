"""``mpidvc plot``."""
