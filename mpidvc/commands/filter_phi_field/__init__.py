"""``mpidvc filterPhiField``."""
