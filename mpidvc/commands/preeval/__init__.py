"""``mpidvc preeval``."""
