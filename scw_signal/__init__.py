"""scw-signal: tells Scaleway that this server has booted; made for OpenBSD."""

__version__ = "1.0.0"
