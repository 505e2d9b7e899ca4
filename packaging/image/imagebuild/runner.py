"""Carries out a trial: runs QEMU and the emulator for each server, reads its disk."""

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
from .machine import CHUNK_BYTES, END_SECONDS, with_complaint
from .process import run, signals_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scw_signal.emulator import Event

    Show = Callable[[str], None]

SCAN = "ssh-keyscan"
SCAN_SECONDS = 20  # for one of perhaps many tries
BETWEEN_SCANS = 0.5  # seconds
ACKNOWLEDGED = "-> running"  # the emulator's event for the signal ends with this
RELAY = (sys.executable, "-IS", str(Path(__file__).with_name("relay.py")))


class Trial(NamedTuple):
    """What to try, and how."""

    image: Path
    firmware: Firmware
    accelerators: Sequence[str]
    # Whether /home must have the rest of the disk, unless the image has /home already.
    home: bool = True
    limits: trial.Limits = trial.Limits()
    larger: Sequence[int] = trial.LARGER


class _AbortedError(Exception):
    """Another server has failed, or the user has interrupted the trial."""


def carry_out(plan: Trial, show: Show) -> list[str]:
    """Try an image; return what was seen, a line for each server.

    Raises BuildError if it does not work. In any case all machines and temporary
    files are gone afterwards, and the image is unchanged.
    """
    size = virtual_size(plan.image)
    with tempfile.TemporaryDirectory(prefix="build-image-") as name:
        servers = [
            trial.Server(f"try{number}-{os.urandom(3).hex()}", Path(name), size + more)
            for number, more in enumerate(plan.larger, 1)
        ]
        grows = plan.home and not _has_home(_reader(plan.image, Path(name, "piece")))
        seen = _all_at_once(plan, servers, show)
    faults = [
        fault
        for server, boots in zip(servers, seen, strict=True)
        for fault in trial.faults_of_one(server, *boots, home=grows)
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
    """Return the size of the disk in an image; raises BuildError."""
    try:
        said = json.loads(run([QEMU_IMG, "info", "--output=json", str(image)]))
        kind, size = said["format"], int(said["virtual-size"])
    except (ValueError, KeyError) as error:
        raise BuildError(f"{QEMU_IMG} says nothing of {image}") from error
    if kind != "qcow2" or said.get("backing-filename"):
        raise BuildError(f"{image} is not a qcow2 without a backing file, but {kind}")
    return size


def _all_at_once(
    plan: Trial, servers: Sequence[trial.Server], show: Show
) -> list[tuple[trial.Seen, trial.Seen]]:
    """Boot each server twice; if one fails, end the others."""
    going, end = socket.socketpair()

    with going, end, _interruptible(end):  # noqa: SIM117 # one after the other
        with concurrent.futures.ThreadPoolExecutor(len(servers)) as pool:
            lives = [
                pool.submit(_live, plan, server, number, show, going)
                for number, server in enumerate(servers, 1)
            ]
            concurrent.futures.wait(
                lives, return_when=concurrent.futures.FIRST_EXCEPTION
            )
            # Makes `going` readable. `end` stays open: a signal may still write to it.
            end.send(b"!")
    for life in lives:
        error = life.exception()
        if error and not isinstance(error, _AbortedError):
            raise error
    return [life.result() for life in lives]


@contextlib.contextmanager
def _interruptible(end: socket.socket) -> Iterator[None]:
    """Make a signal write to `end`; raises KeyboardInterrupt when all have ended.

    The main thread waits for a lock: a signal just before it goes to sleep does not
    wake it.
    """
    with signals_held():
        end.settimeout(0)
        signal.set_wakeup_fd(end.fileno())
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)


def _live(
    plan: Trial,
    server: trial.Server,
    number: int,
    show: Show,
    going: socket.socket,
) -> tuple[trial.Seen, trial.Seen]:
    """Make a server, boot it twice, and read its disk after each boot."""
    run(trial.overlay(plan.image.absolute(), server))
    shutil.copyfile(plan.firmware.variables, server.variables)
    seen = []
    for count in ("first", "second"):
        show(f"{server.name}: {count} boot")
        with _Guest(plan, server, number) as guest:
            keys = guest.go(going, lambda part: show(f"{server.name}: {part}"))
        boot = guest.boot
        piece = server.directory / f"{server.name}.piece"
        layout = disk.layout(_reader(server.disk, piece))
        seen.append(trial.Seen(boot.seconds, boot.hostname, keys, layout))
    return seen[0], seen[1]


class _Guest:
    """One boot of a server: QEMU, its connections, and the state of the boot."""

    def __init__(self, plan: Trial, server: trial.Server, number: int) -> None:
        self._service = Emulator(
            document=trial.document(DOCUMENT, server, number), any_port=True
        )
        self._bell, self._ring = socket.socketpair()
        self._control, theirs = socket.socketpair()
        self._replies = b""  # what QEMU sent on its control socket
        self._answers = True  # whether that is still open
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
                    start_new_session=True,  # only we get Ctrl-C, and end it properly
                )
            except OSError as error:
                raise BuildError(f"cannot run {words[0]}: {error.strerror}") from error
        self._service.follow(self._watch_event)
        self._command("qmp_capabilities")

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
        """Run the boot; return the host keys; raises BuildError, _AbortedError."""
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
                    self._command("system_powerdown")
            if self.boot.part is not part:
                part = self.boot.part
                show(part.value)
        return keys

    def _step(self, going: socket.socket) -> None:
        """Wait for the next event, and handle it."""
        output = self._process.stdout
        assert output is not None  # noqa: S101 # for mypy: it is a pipe
        wait = max(0.0, self.boot.due - time.monotonic())
        if self.boot.part is trial.Part.KEYS:
            wait = min(wait, BETWEEN_SCANS)
        sources: list[socket.socket | IO[bytes]] = [going, output, self._bell]
        sources += [self._control] if self._answers else []
        ready = select.select(sources, [], [], wait)[0]
        now = time.monotonic()
        if going in ready:
            raise _AbortedError
        if self._control in ready:
            self._listen()
        if self._bell in ready:
            self._bell.recv(CHUNK_BYTES)
            self._type(self.boot.signalled(now))
        if output in ready:
            data = os.read(output.fileno(), CHUNK_BYTES)
            if not data:
                self.boot.ended(self._reason(), now)
                return
            self._type(self.boot.receive(data, now))
        self._type(self.boot.tick(now))

    def _watch_event(self, event: Event) -> None:
        if event.text.endswith(ACKNOWLEDGED):
            self._ring.send(b"!")

    def _type(self, texts: Iterator[bytes]) -> None:
        keyboard = self._process.stdin
        assert keyboard is not None  # noqa: S101 # for mypy: it is a pipe
        for text in texts:
            try:
                os.write(keyboard.fileno(), text)
            except BrokenPipeError:  # its output will show that it has ended
                return

    def _command(self, command: str) -> None:
        try:
            self._control.sendall(json.dumps({"execute": command}).encode() + b"\n")
        except OSError:  # as above
            return

    def _listen(self) -> None:
        """Read what QEMU sends; end a machine that it stopped because KVM failed."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            data = self._control.recv(CHUNK_BYTES)
        self._answers = bool(data)
        self._replies += data
        if b'"STOP"' in self._replies:
            self._process.kill()

    def _reason(self) -> str:
        """Return QEMU's reason for the end of the machine, or ""."""
        self._process.wait(END_SECONDS)
        self._control.settimeout(END_SECONDS)
        with contextlib.suppress(ConnectionResetError):
            while data := self._control.recv(CHUNK_BYTES):
                self._replies += data
        for line in self._replies.splitlines():
            event = json.loads(line)
            if event.get("event") == "SHUTDOWN":
                return str(event.get("data", {}).get("reason", ""))
        return ""


def free_port() -> int:
    """Return a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _host_keys(port: int) -> frozenset[str]:
    """Return the host keys of a guest, type and key; none if it does not answer."""
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
    # An address, a type and a key; other lines begin with a hash sign.
    found = re.findall(r"^[^#\s]\S* (\S+ \S+)$", done.stdout, re.MULTILINE)
    return frozenset(found)


def _has_home(read: Callable[[int, int], bytes]) -> bool:
    """Tell whether an image has /home already, such as one of a sealed server."""
    try:
        return disk.layout(read).mounted_on("/home") is not None
    except BuildError:
        return False


def _reader(image: Path, piece: Path) -> Callable[[int, int], bytes]:
    """Return a function that reads an image by way of a file, `piece`."""

    def read(offset: int, size: int) -> bytes:
        first, last = offset // disk.SECTOR, -(-(offset + size) // disk.SECTOR)
        words = [QEMU_IMG, "dd", "-f", "qcow2", "-O", "raw", f"bs={disk.SECTOR}"]
        words += [f"if={image}", f"of={piece}"]
        # qemu-img counts `count` from the start of the disk.
        run([*words, f"skip={first}", f"count={last}"])
        data = piece.read_bytes()
        at = offset - first * disk.SECTOR
        return data[at : at + size].ljust(size, b"\0")

    return read
