"""What a claim is: a sentence, what checks it, and how long that may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from .lab import Lab

    Check = Callable[[Lab], str | None]

OPENBSD = "OpenBSD"


class Failed(Exception):  # noqa: N818 - this is what becomes of a claim
    """A claim did not hold; the text says what was seen."""


class Interrupted(BaseException):
    """A signal asks to end; whatever was done to the machine is undone first."""

    def __init__(self, number: int) -> None:
        """Take the number of the signal."""
        self.number = number


class Claim(NamedTuple):
    """One claim. What `check` returns, a figure, is printed beside it."""

    name: str
    says: str
    check: Check
    seconds: float  # after which it has failed
    only: str  # the system on which it can be checked; empty: everywhere


CLAIMS: list[Claim] = []


def claim(
    says: str, *, seconds: float = 180, only: str = ""
) -> Callable[[Check], Check]:
    """Add a function to the claims, by its own name and with a sentence."""

    def add(check: Check) -> Check:
        add_claim(getattr(check, "__name__", ""), says, check, seconds, only)
        return check

    return add


def add_claim(
    name: str, says: str, check: Check, seconds: float = 180, only: str = ""
) -> None:
    """Add a claim, such as one of a table."""
    CLAIMS.append(Claim(name, says, check, seconds, only))


def expect(held: object, seen: object) -> None:
    """Raise Failed with what was seen, unless it held."""
    if not held:
        raise Failed(str(seen))
