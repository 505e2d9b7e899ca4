"""The one error of a build: its text is one line, and says what to do if it can."""


class BuildError(Exception):
    """The image cannot be built."""
