"""The command line: options, console output and exit codes."""
