"""``mpidvc pixelSearchPropagate``."""
