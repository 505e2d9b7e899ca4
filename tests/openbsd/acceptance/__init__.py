"""The acceptance test of scw-signal: see ../accept, which runs it."""
