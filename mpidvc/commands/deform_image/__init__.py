"""``mpidvc deformImage``."""
