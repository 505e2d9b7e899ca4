"""A claim: a sentence, the function that checks it, and a time limit."""

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
    """A signal asked the run to end; every change is undone first."""

    def __init__(self, number: int) -> None:
        """Take the number of the signal."""
        self.number = number


class Claim(NamedTuple):
    """One claim. `check` returns a figure, which is printed beside it."""

    name: str
    says: str
    check: Check
    seconds: float  # after which it has failed
    only: str  # the only system for it; empty: every system


CLAIMS: list[Claim] = []


def claim(
    says: str, *, seconds: float = 180, only: str = ""
) -> Callable[[Check], Check]:
    """Add a function to the claims, under its own name and with a sentence."""

    def add(check: Check) -> Check:
        add_claim(getattr(check, "__name__", ""), says, check, seconds, only)
        return check

    return add


def add_claim(
    name: str, says: str, check: Check, seconds: float = 180, only: str = ""
) -> None:
    """Add one claim, such as one from a table."""
    CLAIMS.append(Claim(name, says, check, seconds, only))


def expect(held: object, seen: object) -> None:
    """Raise Failed with what was seen, unless the condition held."""
    if not held:
        raise Failed(str(seen))
