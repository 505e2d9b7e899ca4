"""The project's errors: one root, and leaves that say what to do.

Whatever a library or the kernel raises is translated into one of these at the
edge where it happened (`transport`, `network`, `store`); the rest of the code
knows no other errors. The text of each is one line, fit to be shown.
"""


class ScwSignalError(Exception):
    """The root: something went wrong, and the text says what."""


class UsageError(ScwSignalError):
    """The command line or the environment asked for something impossible."""


class NoSuchKeyError(ScwSignalError):
    """The document has no such key."""


class NotRootError(ScwSignalError):
    """Something that only root may do was tried by somebody else."""


class DutyError(ScwSignalError):
    """What root was asked to do before the signal could not be done."""


class RefusedError(ScwSignalError):
    """The service answered, and the answer is no: a 3xx or a lasting 4xx.

    The agent tries again as after any failure, for the answer may be the service's own
    mistake; a person is told at once.
    """


class TryAgainError(ScwSignalError):
    """A try failed, and the next one may not."""

    def __init__(
        self, message: str, *, after: float = 0.0, overload: bool = False
    ) -> None:
        """Take the message, and the seconds that the service asked us to wait.

        `overload` says that the service may have more to do than it can.
        """
        super().__init__(message)
        self.after = after
        self.overload = overload


class UnreachableError(TryAgainError):
    """No connection came about at any address of the service."""


class BrokenOffError(TryAgainError):
    """A connection came about, and ended or fell silent before a whole reply."""


class UnavailableError(TryAgainError):
    """The service answered that it cannot answer now: 404, 408, 425, 429, 5xx."""


class OtherStateError(TryAgainError):
    """The service names another state than the one that was sent."""


class NonsenseError(TryAgainError):
    """The reply is not what was asked for, as an HTML page where JSON was due."""


class GaveUpError(ScwSignalError):
    """The time for trying has passed; the text says what the last try failed with."""


class StoreError(ScwSignalError):
    """A file in the run directory could not be written."""


class Stopped(BaseException):
    """SIGTERM or SIGINT came: no error, and no handler of errors shall keep it."""

    def __init__(self, number: int) -> None:
        """Take the number of the signal."""
        super().__init__(f"signal {number}")
        self.number = number
