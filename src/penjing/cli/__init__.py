"""Command line: argv, exit codes, the screen."""
