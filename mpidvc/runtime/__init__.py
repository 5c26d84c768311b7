"""Communicator, executors, launch and console; nothing here knows what a correlation is."""
