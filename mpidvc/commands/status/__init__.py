"""``mpidvc status``."""
