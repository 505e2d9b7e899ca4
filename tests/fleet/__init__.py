"""A whole zone powers on at once: `make fleet` simulates it; see model.py."""
