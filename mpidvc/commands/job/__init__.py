"""``mpidvc job``."""
