"""Images of every storage, read box by box."""
