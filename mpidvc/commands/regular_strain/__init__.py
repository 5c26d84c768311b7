"""``mpidvc regularStrain``: strain from a field of displacements."""
