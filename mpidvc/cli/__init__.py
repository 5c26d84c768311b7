"""The command line: the parser, the options that commands share, and what a command is."""
