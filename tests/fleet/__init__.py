"""A simulation of a zone that powers on at once, for `make fleet`; see model.py."""
