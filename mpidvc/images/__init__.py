"""Image sources behind `read_box`."""
