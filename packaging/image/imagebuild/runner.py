"""Carries out a trial: the QEMU of each server, the emulator, a look at the disk."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from scw_signal.emulator import DOCUMENT, Emulator

from . import disk, trial
from .commands import QEMU_IMG, Firmware
from .errors import BuildError
from .machine import run, with_complaint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scw_signal.emulator import Event

    Show = Callable[[str], None]

READ = 65536
SCAN = "ssh-keyscan"
SCAN_SECONDS = 20  # for one try, of which there may be many
BETWEEN_SCANS = 0.5  # seconds
PATIENCE = 60.0  # seconds for a process to be gone, once it has said its last
ACKNOWLEDGED = "-> running"  # ends that event of the emulator which counts
RELAY = (sys.executable, "-IS", str(Path(__file__).with_name("relay.py")))


class Trial(NamedTuple):
    """What is tried, and how."""

    image: Path
    firmware: Firmware
    accelerators: Sequence[str]
    home: bool = True  # whether /home is to have the rest of the disk
    limits: trial.Limits = trial.Limits()
    larger: Sequence[int] = trial.LARGER


class _Over(Exception):  # noqa: N818 - no fault of this server
    """Another server has failed, or somebody has interrupted all of it."""


def carry_out(plan: Trial, show: Show) -> list[str]:
    """Try an image; return what was seen, a line for each server.

    Raises BuildError where it does not do what it should. Nothing is left behind,
    no machine runs any more, and the image is as it was.
    """
    size = virtual_size(plan.image)
    with tempfile.TemporaryDirectory(prefix="build-image-") as name:
        servers = [
            trial.Server(f"try{number}-{os.urandom(3).hex()}", Path(name), size + more)
            for number, more in enumerate(plan.larger, 1)
        ]
        seen = _all_at_once(plan, servers, show)
    faults = [
        fault
        for server, boots in zip(servers, seen, strict=True)
        for fault in trial.faults_of_one(server, *boots, home=plan.home)
    ]
    if len(seen) > 1:
        faults += trial.faults_of_two(seen[0][0], seen[1][0])
    if faults:
        raise trial.TrialError("; ".join(faults))
    return [
        trial.summary(server, *boots)
        for server, boots in zip(servers, seen, strict=True)
    ]


def virtual_size(image: Path) -> int:
    """Return the size of the disk that an image is of; raises BuildError."""
    try:
        said = json.loads(run([QEMU_IMG, "info", "--output=json", str(image)]))
        kind, size = said["format"], int(said["virtual-size"])
    except (ValueError, KeyError) as error:
        raise BuildError(f"{QEMU_IMG} says nothing of {image}") from error
    if kind != "qcow2" or said.get("backing-filename"):
        raise BuildError(f"{image} is no qcow2 that stands alone, but {kind}")
    return size


def _all_at_once(
    plan: Trial, servers: Sequence[trial.Server], show: Show
) -> list[tuple[trial.Seen, trial.Seen]]:
    """Have each server boot twice; the first that fails ends the others."""
    going, end = socket.socketpair()

    with going, end, _signals_held(end):  # noqa: SIM117 # one after the other
        with concurrent.futures.ThreadPoolExecutor(len(servers)) as pool:
            lives = [
                pool.submit(_live, plan, server, number, show, going)
                for number, server in enumerate(servers, 1)
            ]
            concurrent.futures.wait(
                lives, return_when=concurrent.futures.FIRST_EXCEPTION
            )
            end.shutdown(socket.SHUT_RDWR)  # `going` is readable, as every server sees
    for life in lives:
        error = life.exception()
        if error and not isinstance(error, _Over):
            raise error
    return [life.result() for life in lives]


@contextlib.contextmanager
def _signals_held(end: socket.socket) -> Iterator[None]:
    """Let a signal write to `end`, and be KeyboardInterrupt when all have ended.

    As an exception in the middle of starting a thread it would leave one behind. And
    the main thread, which waits for a lock, need not notice it: a signal that comes
    just before it goes to sleep does not wake it.
    """
    caught: list[int] = []

    def note(number: int, _: object) -> None:
        caught.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, note) for number in numbers]
    end.settimeout(0)
    signal.set_wakeup_fd(end.fileno())
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    if caught:
        raise KeyboardInterrupt(caught[0])


def _live(
    plan: Trial,
    server: trial.Server,
    number: int,
    show: Show,
    going: socket.socket,
) -> tuple[trial.Seen, trial.Seen]:
    """Make a server, boot it twice, and look at its disk after each."""
    run(trial.overlay(plan.image.absolute(), server))
    shutil.copyfile(plan.firmware.variables, server.variables)
    seen = []
    for count in ("first", "second"):
        show(f"{server.name}: {count} boot")
        with _Guest(plan, server, number) as guest:
            keys = guest.go(going, lambda part: show(f"{server.name}: {part}"))
        boot = guest.boot
        layout = disk.layout(_reader(server))
        seen.append(trial.Seen(boot.seconds, boot.hostname, keys, layout))
    return seen[0], seen[1]


class _Guest:
    """One boot of a server: QEMU, what it is joined to, and the course of it."""

    def __init__(self, plan: Trial, server: trial.Server, number: int) -> None:
        self._service = Emulator(
            document=trial.document(DOCUMENT, server, number), any_port=True
        )
        self._bell, self._ring = socket.socketpair()
        self._control, theirs = socket.socketpair()
        self._said = b""  # by QEMU, on its control socket
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - see __exit__
        service_port = int(self._service.url.rpartition(":")[2])
        self._ssh = free_port()
        ports = trial.Ports(service_port, self._ssh, theirs.fileno())
        words = trial.machine(server, plan.firmware, plan.accelerators, ports, RELAY)
        self.boot = trial.Boot(server.name, plan.limits, time.monotonic())
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 # no shell
                    words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._complaints,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for us, who end it properly
                )
            except OSError as error:
                raise BuildError(f"cannot run {words[0]}: {error.strerror}") from error
        self._service.follow(self._heed)
        self._tell("qmp_capabilities")

    def __enter__(self) -> _Guest:  # noqa: PYI034 # typing.Self is younger
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:
            pass
        for each in (self._service, self._bell, self._ring, self._control):
            each.close()
        self._complaints.close()

    def go(self, going: socket.socket, show: Show) -> frozenset[str]:
        """Go through the boot; return the host keys; raises BuildError, _Over."""
        keys: frozenset[str] = frozenset()
        part = self.boot.part
        while self.boot.part is not trial.Part.DONE:
            try:
                self._step(going)
            except trial.TrialError as error:
                text = str(with_complaint(error, self._complaints))
                raise trial.TrialError(text, error.console) from None
            if self.boot.part is trial.Part.KEYS:
                keys = _host_keys(self._ssh)
                if keys:
                    self.boot.shown(time.monotonic())
                    self._tell("system_powerdown")
            if self.boot.part is not part:
                part = self.boot.part
                show(part.value)
        return keys

    def _step(self, going: socket.socket) -> None:
        """Wait for whatever comes first, and take it."""
        output = self._process.stdout
        assert output is not None  # noqa: S101 # for mypy: it is a pipe
        wait = max(0.0, self.boot.due - time.monotonic())
        if self.boot.part is trial.Part.KEYS:
            wait = min(wait, BETWEEN_SCANS)
        sources: list[socket.socket | IO[bytes]] = [going, output, self._bell]
        ready = select.select(sources, [], [], wait)[0]
        now = time.monotonic()
        if going in ready:
            raise _Over
        if self._bell in ready:
            self._bell.recv(READ)
            self._type(self.boot.signalled(now))
        if output in ready:
            data = os.read(output.fileno(), READ)
            if not data:
                self.boot.ended(self._reason(), now)
                return
            self._type(self.boot.receive(data, now))
        self._type(self.boot.tick(now))

    def _heed(self, event: Event) -> None:
        if event.text.endswith(ACKNOWLEDGED):
            self._ring.send(b"!")

    def _type(self, texts: Iterator[bytes]) -> None:
        keyboard = self._process.stdin
        assert keyboard is not None  # noqa: S101 # for mypy: it is a pipe
        for text in texts:
            try:
                os.write(keyboard.fileno(), text)
            except BrokenPipeError:  # its end is seen at its output
                return

    def _tell(self, command: str) -> None:
        try:
            self._control.sendall(json.dumps({"execute": command}).encode() + b"\n")
        except OSError:  # as above
            return

    def _reason(self) -> str:
        """Return why the machine has ended, as QEMU names it, or nothing."""
        self._process.wait(PATIENCE)
        self._control.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            while data := self._control.recv(READ):
                self._said += data
        for line in self._said.splitlines():
            event = json.loads(line)
            if event.get("event") == "SHUTDOWN":
                return str(event.get("data", {}).get("reason", ""))
        return ""


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _host_keys(port: int) -> frozenset[str]:
    """Return the host keys that a guest shows, type and key; none if it does not."""
    words = [
        SCAN,
        "-t",
        "ed25519",
        "-T",
        str(SCAN_SECONDS),
        "-p",
        str(port),
        "127.0.0.1",
    ]
    try:
        done = subprocess.run(  # noqa: S603 # no shell
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * SCAN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return frozenset()
    # An address, a type and a key; what it says besides begins with a hash sign.
    found = re.findall(r"^[^#\s]\S* (\S+ \S+)$", done.stdout, re.MULTILINE)
    return frozenset(found)


def _reader(server: trial.Server) -> Callable[[int, int], bytes]:
    """Return what reads pieces of a server's disk, while no machine has it."""
    piece = server.directory / f"{server.name}.piece"

    def read(offset: int, size: int) -> bytes:
        first, last = offset // disk.SECTOR, -(-(offset + size) // disk.SECTOR)
        words = [QEMU_IMG, "dd", "-f", "qcow2", "-O", "raw", f"bs={disk.SECTOR}"]
        words += [f"if={server.disk}", f"of={piece}"]
        # Of qemu-img's, count is counted from the start of the disk.
        run([*words, f"skip={first}", f"count={last}"])
        data = piece.read_bytes()
        at = offset - first * disk.SECTOR
        return data[at : at + size].ljust(size, b"\0")

    return read
