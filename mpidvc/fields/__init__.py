"""The `PhiField` type and its readers and writers."""
