"""The error of a build: its text is one line, and says what to do if possible."""


class BuildError(Exception):
    """The image cannot be built."""
