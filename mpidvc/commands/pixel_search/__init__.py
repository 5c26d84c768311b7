"""``mpidvc pixelSearch``."""
