"""Fuzzing of everything that parses bytes from elsewhere; see targets.py."""
