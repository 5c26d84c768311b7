"""``mpidvc ddic``."""
