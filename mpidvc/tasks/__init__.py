"""Kinds of work: images, fields and a core function joined into chunks that an executor can run."""
