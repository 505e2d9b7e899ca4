"""Whether a finished image works on a server; pure.

Strategy: everything is checked from outside. The emulator reports the signal, the
login prompt on the console shows the host name, sshd(8) shows its host keys, and the
disk is read when the machine is off. Two servers of different sizes boot at the same
time, and each boots twice. What must be unique has to differ between them, and what
must stay has to be the same at the second boot.

Boot is the state of one boot. Input are events, with their time; output is what to
type. The trial does not log in: there is no password, and only the user has the key.
"""

from __future__ import annotations

import enum
import re
import shlex
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from scw_signal.terminal import printable

from .commands import GIGABYTE, MEMORY, QEMU, QEMU_IMG, Firmware, drive_file
from .console import LONGEST_LINE, STOPPED, drawn, failure
from .disk import SECTOR
from .errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from .disk import Layout

NETWORK = "169.254.42.0/24"
SERVICE = "169.254.42.42"
# How much larger than the image the disks of the two servers are.
LARGER = (5 * GIGABYTE, 7 * GIGABYTE)
SHOWN = 12  # lines of the console to show after a failure
# Bytes of a disk that may stay unused: rounding, and the backup of the GPT.
SPARE = 16 * 1024 * 1024
NUDGE = 10.0  # seconds of silence until another login prompt is requested

# What ends a boot; a disk that does not match fstab(5) leads to single-user mode.
BOOT_FAILURES = [
    *STOPPED,
    (re.compile(r"(Enter pathname of shell)"), "it came up in single-user"),
]
# The login prompt of gettytab(5): OpenBSD/amd64 (name) (tty00).
_PROMPT = re.compile(r"^\w+/\w+ \((\S+)\) \(tty\w+\)", re.MULTILINE)


class TrialError(BuildError):
    """A server did not work; the error has the last lines of its console."""

    def __init__(self, text: str, console: Sequence[str] = ()) -> None:
        """Take one line of text, and the console's last lines."""
        super().__init__(text)
        self.console = list(console)


class Limits(NamedTuple):
    """Seconds that each part of a boot may take, long enough for QEMU without KVM."""

    signal: float = 1800.0
    prompt: float = 600.0
    keys: float = 120.0
    off: float = 300.0


class Server(NamedTuple):
    """A server of a trial: its files, and its name in the metadata."""

    name: str
    directory: Path
    size: int  # bytes of its disk

    @property
    def disk(self) -> Path:
        """Its own layer over the image."""
        return self.directory / f"{self.name}.qcow2"

    @property
    def variables(self) -> Path:
        """The firmware's variables."""
        return self.directory / f"{self.name}.fd"


class Ports(NamedTuple):
    """What connects a guest to this machine."""

    emulator: int  # the port behind the address of the service
    ssh: int  # the port that leads to the guest's sshd(8)
    control: int  # the descriptor of QEMU's control socket


class Seen(NamedTuple):
    """The results of one boot."""

    seconds: float  # from power-on to the signal
    hostname: str
    keys: frozenset[str]
    layout: Layout


class Part(enum.Enum):
    """What a boot waits for."""

    SIGNAL = "boot"
    PROMPT = "login prompt"
    KEYS = "host keys"
    OFF = "power-off"
    DONE = "off"


def overlay(image: Path, server: Server) -> list[str]:
    """Return the command that makes a server's disk; it does not change the image.

    The size is in whole sectors. The path of the image must be absolute, since the
    layer is in another directory.
    """
    words = [QEMU_IMG, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image)]
    return [*words, str(server.disk), str(server.size - server.size % SECTOR)]


def machine(
    server: Server,
    firmware: Firmware,
    accelerators: Sequence[str],
    ports: Ports,
    relay: Sequence[str],
) -> list[str]:
    """Return the command that runs a server, its console on stdin and stdout.

    Its network has only the emulator, at the address of the service: everything that
    it sends elsewhere is dropped. A reboot ends it.
    """
    pflash = "if=pflash,format=raw,"
    joined = shlex.join([*relay, str(ports.emulator)]).replace(",", ",,")
    network = (
        f"user,id=net,restrict=on,net={NETWORK},host=169.254.42.2"
        f",dhcpstart=169.254.42.15,guestfwd=tcp:{SERVICE}:80-cmd:{joined}"
        f",hostfwd=tcp:127.0.0.1:{ports.ssh}-:22"
    )
    return [
        *(QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35"),
        *(word for name in accelerators for word in ("-accel", name)),
        *("-smp", "2", "-m", str(MEMORY)),
        *("-drive", f"{pflash}readonly=on,{drive_file(firmware.code)}"),
        *("-drive", f"{pflash}{drive_file(server.variables)}"),
        "-drive",
        "if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap,"
        + drive_file(server.disk),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
        *("-netdev", network),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=control,fd={ports.control}"),
        *("-mon", "chardev=control,mode=control"),
    ]


def document(
    base: Mapping[str, object], server: Server, number: int
) -> dict[str, object]:
    """Return the metadata of a server, with its own name and id."""
    identity = f"00000000-0000-4000-8000-{number:012d}"
    return {**base, "hostname": server.name, "name": server.name, "id": identity}


class Boot:
    """One boot of a server, from power-on to power-off."""

    def __init__(self, hostname: str, limits: Limits, now: float) -> None:
        """Begin at power-on; times are seconds on one monotonic clock."""
        self.part = Part.SIGNAL
        self.seconds = 0.0
        self.hostname = ""
        self._wanted = hostname
        self._limits = limits
        self._began = self._since = self._heard = now
        self._pending = b""
        self._console: deque[str] = deque(maxlen=SHOWN)

    @property
    def due(self) -> float:
        """When to call `tick` at the latest."""
        end = self._since + self._limit
        waits = self.part is Part.PROMPT
        return min(end, self._heard + NUDGE) if waits else end

    def receive(self, data: bytes, now: float) -> Iterator[bytes]:
        """Take output of the console; yield what to type; raises TrialError."""
        self._heard = now
        self._pending = drawn(self._pending + data)
        *whole, rest = self._pending.split(b"\n")
        text = self._pending.decode("ascii", "replace")
        self._console.extend(
            printable(line.decode("ascii", "replace")) for line in whole if line.strip()
        )
        why = failure(text, BOOT_FAILURES)
        if why and self.part is not Part.OFF:
            raise self._error(why)
        for found in _PROMPT.finditer(text):
            self.hostname = found[1]
        if self.part is Part.PROMPT and _PROMPT.search(text):
            yield from self._look_at_name(now)
        self._pending = rest[-LONGEST_LINE:]

    def signalled(self, now: float) -> Iterator[bytes]:
        """Note that the signal was acknowledged; yield what to type."""
        if self.part is not Part.SIGNAL:
            return
        self.seconds = now - self._began
        self._enter(Part.PROMPT, now)
        yield from self._look_at_name(now)

    def shown(self, now: float) -> None:
        """Note that the host keys are known."""
        if self.part is Part.KEYS:
            self._enter(Part.OFF, now)

    def ended(self, reason: str, now: float) -> None:
        """Note the end of the machine, and QEMU's reason for it; raises TrialError."""
        if self.part is not Part.OFF:
            raise self._error(
                "the server rebooted by itself"
                if reason == "guest-reset"
                else "the server powered itself off"
                if reason == "guest-shutdown"
                else "the machine ended"
            )
        self._enter(Part.DONE, now)

    def tick(self, now: float) -> Iterator[bytes]:
        """Let time pass; yield what to type; raises TrialError when the time is up."""
        if now >= self._since + self._limit:
            raise self._error(self._late())
        if self.part is Part.PROMPT and now >= self._heard + NUDGE:
            self._heard = now
            yield b"\x04"

    def _late(self) -> str:
        within = f"within {self._limit:.0f} s"
        if self.part is Part.SIGNAL:
            return f"no signal was acknowledged {within} of power-on"
        if self.part is Part.PROMPT and self.hostname:
            return f"the host name is {printable(self.hostname)}, not {self._wanted}"
        if self.part is Part.PROMPT:
            return f"no login prompt {within} of the signal"
        if self.part is Part.KEYS:
            return f"sshd(8) showed no host key {within}"
        return f"it did not power off {within} of its button"

    def _look_at_name(self, now: float) -> Iterator[bytes]:
        """Check the name; if it is wrong, make getty(8) restart and read it again."""
        if self.hostname.partition(".")[0] == self._wanted:
            self._enter(Part.KEYS, now)
        elif self.hostname:
            yield b"\x04"

    def _enter(self, part: Part, now: float) -> None:
        self.part = part
        self._since = self._heard = now

    @property
    def _limit(self) -> float:
        return {
            Part.SIGNAL: self._limits.signal,
            Part.PROMPT: self._limits.prompt,
            Part.KEYS: self._limits.keys,
            Part.OFF: self._limits.off,
        }.get(self.part, 0.0)

    def _error(self, what: str) -> TrialError:
        rest = printable(self._pending.decode("ascii", "replace").strip())
        return TrialError(
            f"{self._wanted}: {self.part.value}: {what}",
            [*self._console, *([rest] if rest else [])][-SHOWN:],
        )


def faults_of_one(
    server: Server, first: Seen, second: Seen, *, home: bool
) -> list[str]:
    """Return the faults of a server that has booted twice."""
    faults = []
    if home and (why := _fault_of_home(server, first.layout)):
        faults.append(why)
    for what, before, after in (
        ("the host name", first.hostname, second.hostname),
        ("the host keys", first.keys, second.keys),
        ("the disklabel UID", first.layout.uid, second.layout.uid),
        ("the partitions", first.layout.partitions, second.layout.partitions),
    ):
        if before != after:
            faults.append(f"the second boot changed {what}")
    return [f"{server.name}: {fault}" for fault in faults]


def _fault_of_home(server: Server, layout: Layout) -> str:
    home = layout.mounted_on("/home")
    if home is None:
        return "nothing was mounted on /home"
    unused = server.size - home.end * SECTOR
    if unused > SPARE:
        return f"/home leaves {unused / GIGABYTE:.1f} GB of the disk unused"
    return ""


def faults_of_two(one: Seen, other: Seen) -> list[str]:
    """Return what two servers of one image share, but should not."""
    faults = []
    if one.layout.uid == other.layout.uid:
        faults.append("two servers have the same disklabel UID")
    if one.keys & other.keys:
        faults.append("two servers have the same SSH host key")
    return faults


def summary(server: Server, first: Seen, second: Seen) -> str:
    """Return the results of a server, for people."""
    home = first.layout.mounted_on("/home")
    size = f", /home has {home.sectors * SECTOR / GIGABYTE:.1f} GB" if home else ""
    return (
        f"{server.name}: signalled {first.seconds:.0f} s after power-on, at the second"
        f" boot {second.seconds:.0f} s; {server.size / GIGABYTE:.1f} GB{size}"
    )
