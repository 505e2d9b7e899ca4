"""The project's errors: one base class, and subclasses that say what to do.

`transport`, `network` and `store` translate the errors of libraries and of the
kernel into these; the rest of the code handles no other errors. The text of each is
one line that can be shown to the user.
"""


class ScwSignalError(Exception):
    """The base class: something went wrong, and the text says what."""


class UsageError(ScwSignalError):
    """The command line or the environment asked for something impossible."""


class NoSuchKeyError(ScwSignalError):
    """The document has no such key."""


class NotRootError(ScwSignalError):
    """Only root may do this, and this process is not root."""


class DutyError(ScwSignalError):
    """The root process could not do what the agent asked for."""


class RefusedError(ScwSignalError):
    """The service refused: a 3xx, or a 4xx that is not temporary.

    The agent retries as after any failure, since the service may be wrong. A command
    reports it at once.
    """


class TryAgainError(ScwSignalError):
    """A try failed, but the next one may succeed."""

    def __init__(
        self, message: str, *, after: float = 0.0, overload: bool = False
    ) -> None:
        """Take the message, and the seconds that the service asked us to wait.

        `overload` says that the service may be overloaded.
        """
        super().__init__(message)
        self.after = after
        self.overload = overload


class UnreachableError(TryAgainError):
    """No address of the service accepted a connection."""


class BrokenOffError(TryAgainError):
    """A connection was made, but it ended or fell silent before a whole reply."""


class UnavailableError(TryAgainError):
    """The service is not available now: 404, 408, 425, 429, 5xx."""


class OtherStateError(TryAgainError):
    """The service names a different state than the one that was sent."""


class NonsenseError(TryAgainError):
    """The reply is not what was asked for, such as HTML instead of JSON."""


class GaveUpError(ScwSignalError):
    """The time limit has passed; the text has the error of the last try."""


class StoreError(ScwSignalError):
    """A file in the run directory could not be written."""


class Stopped(BaseException):
    """SIGTERM or SIGINT came. Not an Exception, so that error handlers let it pass."""

    def __init__(self, number: int) -> None:
        """Take the number of the signal."""
        super().__init__(f"signal {number}")
        self.number = number
