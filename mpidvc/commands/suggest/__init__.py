"""``mpidvc suggest``."""
