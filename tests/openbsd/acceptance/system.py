"""What a claim needs of the system, whichever it is: see linux and openbsd.

    guest vio0 or pairN ---- service's eth0 or pairM

Both ends are in a place of their own, a network namespace or an rdomain(4), and no
packet leaves them. The service has the real addresses. The guest reaches them through
a gateway, which is the service's own end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

USER = "_scwsignal"
SERVICE = {4: "169.254.42.42", 6: "fd00:42::42"}
GATEWAY = {4: "192.0.2.1", 6: "2001:db8::1"}
GUEST = {4: "192.0.2.7", 6: "2001:db8::7"}
BITS = {4: 24, 6: 64}
ELSEWHERE = {4: "198.51.100.0/24", 6: "2001:db8:1::/64"}  # where no service is
NOBODY = "192.0.2.99"  # an address that nobody has
RUN_DIRECTORY = "/var/run/scw_signal"
COMMANDS = (
    "scw-signald", "scw-signal-state", "scw-metadata", "scw-metadata-json",
    "scw-userdata",
)  # fmt: skip


class RefusedError(Exception):
    """It cannot be run here; the text is one line for the user."""


class System(Protocol):
    """The machine, and what is done to it. Every change is undone by `restore`."""

    name: str  # as uname -s has it
    bin: str  # the directory of the commands
    scratch: str  # a directory that every user may read
    db: str  # the directory of the duties
    hostname_file: str  # where the host name is kept for the next boot
    emulator_env: dict[str, str]
    service_python: str

    def check(self) -> None:
        """Raise RefusedError if this cannot be run here; changes nothing."""

    def enclose(self) -> None:
        """Go on in a process of its own; the one that was started waits for it."""

    def prepare(self) -> None:
        """Make what all claims need."""

    def restore(self) -> None:
        """Undo all that was done to the machine, however far that went."""

    def reset(self) -> None:
        """End what a claim has left running, and take the guest's network away."""

    def watch(self) -> Sequence[str]:
        """Return what enforcement has to say since the last time it was asked."""

    def guest(self, words: Sequence[str], user: str | None = None) -> list[str]:
        """Return the command line that runs a command in the guest."""

    def service(self, words: Sequence[str]) -> list[str]:
        """Return the command line that runs a command where the service is."""

    def connect(self, *versions: int) -> None:
        """Give the guest an address and a default route."""

    def address(self, version: int) -> None:
        """Give the guest an address, from which nothing is reached but its gateway."""

    def route(self, version: int) -> None:
        """Give the guest its default route."""

    def unroute(self, version: int) -> None:
        """Take that away."""

    def unrelated(self) -> None:
        """Add another address and a route, which lead nowhere near the service."""

    def black_hole(self) -> None:
        """Lose every packet for the service's IPv4 address, until `reset`."""

    def resolve_with(self, text: str | None) -> None:
        """Make this the resolv.conf(5), until `reset`; None: there is none."""

    def keep_hostname(self) -> None:
        """Have the host name, and the one for the next boot, put back by `reset`."""

    def memory(self, pid: int) -> float:
        """Return the memory that a process has, in MiB."""
