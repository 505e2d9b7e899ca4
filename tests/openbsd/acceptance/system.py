"""What a claim needs from the system; linux and openbsd implement it.

    guest vio0 or pairN ---- service's eth0 or pairM

Each end is in its own network namespace or rdomain(4), and no packet leaves them. The
service has the real addresses. The guest reaches them through a gateway, which is the
service's end.
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
ELSEWHERE = {4: "198.51.100.0/24", 6: "2001:db8:1::/64"}  # no service here
NOBODY = "192.0.2.99"  # an address not in use
RUN_DIRECTORY = "/var/run/scw_signal"
COMMANDS = (
    "scw-signald", "scw-signal-state", "scw-metadata", "scw-metadata-json",
    "scw-userdata",
)  # fmt: skip


class RefusedError(Exception):
    """The test cannot run here; the text is one line for the user."""


class System(Protocol):
    """The machine, and the changes made to it. `restore` undoes every change."""

    name: str  # as uname -s prints it
    bin: str  # the directory of the commands
    scratch: str  # a directory that every user may read
    db: str  # the directory of the duties
    hostname_file: str  # where the host name is kept for the next boot
    emulator_env: dict[str, str]
    service_python: str

    def check(self) -> None:
        """Raise RefusedError if the test cannot run here; change nothing."""

    def enclose(self) -> None:
        """Continue in a new process; the original process waits for it."""

    def prepare(self) -> None:
        """Set up what all claims need."""

    def restore(self) -> None:
        """Undo every change to the machine, even if the setup was incomplete."""

    def reset(self) -> None:
        """End what a claim has left running, and remove the guest's network."""

    def watch(self) -> Sequence[str]:
        """Return what enforcement has reported since the last call."""

    def guest(self, words: Sequence[str], user: str | None = None) -> list[str]:
        """Return the command line that runs a command in the guest."""

    def service(self, words: Sequence[str]) -> list[str]:
        """Return the command line that runs a command on the service's side."""

    def connect(self, *versions: int) -> None:
        """Give the guest an address and a default route."""

    def address(self, version: int) -> None:
        """Give the guest an address, from which it can reach only its gateway."""

    def route(self, version: int) -> None:
        """Give the guest its default route."""

    def unroute(self, version: int) -> None:
        """Remove the guest's default route."""

    def unrelated(self) -> None:
        """Add another address and a route that do not lead to the service."""

    def black_hole(self) -> None:
        """Drop every packet for the service's IPv4 address, until `reset`."""

    def resolve_with(self, text: str | None) -> None:
        """Write this as resolv.conf(5), until `reset`; None removes the file."""

    def keep_hostname(self) -> None:
        """Make `reset` restore the host name, and the one for the next boot."""

    def memory(self, pid: int) -> float:
        """Return how much memory a process uses, in MiB."""
