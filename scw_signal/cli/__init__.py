"""The commands: each module has a main() that takes argv, returns the exit status."""
