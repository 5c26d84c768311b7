"""What the runs of several commands share, from their files to their results."""
