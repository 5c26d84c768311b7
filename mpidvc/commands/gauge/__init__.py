"""``mpidvc gauge``."""
