"""``mpidvc passPhiField``."""
