"""``mpidvc ereg``."""
