"""``mpidvc doctor``."""
