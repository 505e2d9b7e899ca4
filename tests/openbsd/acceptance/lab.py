"""What a claim works with: the service, name servers, the agent, the commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .claim import OPENBSD, expect
from .process import Done, Process, Transcript, run
from .system import GATEWAY, RUN_DIRECTORY, SERVICE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .openbsd import OpenBSD
    from .process import Line
    from .system import System

STOP_SECONDS = 1.0  # in which the agent promises to end
RESOLV_CONF = f"nameserver {GATEWAY[4]}\n"
NAMESERVER = Path(__file__).with_name("nameserver.py")
HOSTNAME = "accept-guest"  # the guest's name, as the console shows it
INSTANCE = "00000000-0000-4000-8000-00000000acce"
DOCUMENT = {
    "id": INSTANCE,
    "hostname": HOSTNAME,
    "commercial_type": "DEV1-S",
    "zone": "fr-par-1",
    "public_ip": {"address": "198.51.100.7", "dynamic": False},
    "ssh_public_keys": [
        {
            "key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"
            "EFuIGVtdWxhdGVkIGtleTogbm9ib2R5IGhhcyBpdC4u puffy"
        }
    ],
    "tags": ["it's one", "$(id) `id`"],
    "volumes": {"0": {"volume_type": "sbs_volume"}},
    "state_detail": "booting kernel",
}


class Emulator(Process):
    """The project's own metadata service, in a separate process."""

    def signals(self) -> list[Line]:
        """Return its lines about signals, accepted or not."""
        return self.lines("PATCH /state")

    def taken(self, count: int = 1) -> Line:
        """Wait until it has accepted the signal number `count`."""
        return self.line("PATCH /state -> 20. state_detail=booted", count)


class Agent(Process):
    """scw-signald in the guest."""

    def waits_for_route(self) -> None:
        """Wait until the agent waits for a route."""
        self.line("network: waiting for a route")

    def signalled(self) -> Line:
        """Wait until its signal is acknowledged and it has exited with status 0."""
        line = self.line("signal: 'booted' acknowledged by")
        status = self.end()
        expect(status == 0, f"the agent ended with status {status}")
        return line

    def stops(self, number: int = signal.SIGTERM) -> str:
        """Stop it; return the milliseconds that took, within its promise."""
        seconds = self.stop(number)
        expect(seconds < STOP_SECONDS, f"it took {seconds:.3f} s to end")
        expect(
            self.lines(f"stopped by {signal.Signals(number).name}"),
            "it did not log that it was stopped",
        )
        return milliseconds(seconds)


class Lab:
    """The work place of one claim; `close` ends all processes started in it."""

    def __init__(self, system: System, top: Path, patience: float) -> None:
        """Take the system, the source tree, and how many seconds a wait may take."""
        self.system = system
        self.top = top
        self.transcript = Transcript(patience)
        self.run_directory = Path(RUN_DIRECTORY)
        self.expected_kills = 0  # by pledge(2), where a claim wants it
        self._processes: list[Process] = []

    def close(self) -> None:
        """End whatever was started."""
        for process in self._processes:
            process.close()

    def note(self, text: str) -> float:
        """Note an action in the transcript; return its time."""
        return self.transcript.add("accept", text)

    def emulator(
        self,
        *options: str,
        at: str = SERVICE[4],
        user_data: dict[str, bytes] | None = None,
    ) -> Emulator:
        """Start the service, and wait until it listens."""
        document = self.file("document", json.dumps(DOCUMENT).encode())
        words = [
            *(self.system.service_python, "-m", "scw_signal.emulator"),
            *("--host", at, "--port", "80", "--doc", str(document)),
        ]
        for key, value in (user_data or {}).items():
            words += ["--user-data", f"{key}={self.file(f'data-{key}', value)}"]
        emulator = Emulator(
            self.transcript,
            "service" if at == SERVICE[4] else "service6",
            self.system.service([*words, *options]),
            env=self.system.emulator_env,
        )
        self._processes.append(emulator)
        emulator.line("^http://")
        return emulator

    def faulty(self, *faults: str, at: str = SERVICE[4]) -> Emulator:
        """Start the service with faults."""
        return self.emulator(*(f"--fault={fault}" for fault in faults), at=at)

    def name_server(self, manner: str) -> Process:
        """Start a name server, and configure the guest to ask it."""
        self.system.resolve_with(RESOLV_CONF)
        python = self.system.service_python
        words = self.system.service([python, str(NAMESERVER), GATEWAY[4], manner])
        server = Process(self.transcript, "dns", words)
        self._processes.append(server)
        server.line("^ready")
        return server

    def agent(
        self, *options: str, user: str | None = None, through: Sequence[str] = ()
    ) -> Agent:
        """Start the agent, perhaps `through` another command, such as sh(1)."""
        words = [*through, f"{self.system.bin}/scw-signald", "-d", "-v", *options]
        command = self.system.guest(words, user)
        agent = Agent(self.transcript, "agent", command, user=self.popen_user(user))
        self._processes.append(agent)
        return agent

    def watched(self, who: str, command: str, *words: str) -> Process:
        """Start a command in the guest, and watch it."""
        process = Process(
            self.transcript,
            who,
            self.system.guest([f"{self.system.bin}/{command}", *words]),
        )
        self._processes.append(process)
        return process

    def command(
        self,
        command: str,
        *words: str,
        user: str | None = None,
        stdin: bytes = b"",
        status: int = 0,
    ) -> Done:
        """Run a command in the guest to its end; it must end with `status`."""
        shown = " ".join((command, *words))
        self.note(f"{'$' if user else '#'} {shown}")
        done = run(
            self.system.guest([f"{self.system.bin}/{command}", *words], user),
            stdin=stdin,
            user=self.popen_user(user),
            seconds=self.transcript.patience,
        )
        for text in (done.out + done.err).splitlines():
            self.transcript.add(command, text)
        expect(
            done.status == status,
            f"{shown}: status {done.status}, not {status}: {done.err.strip()}",
        )
        return done

    def file(self, name: str, data: bytes) -> Path:
        """Write a file that everybody may read; return its path."""
        path = Path(self.system.scratch, name)
        path.write_bytes(data)
        path.chmod(0o644)
        return path

    def run_dir_for(self, user: str) -> None:
        """Make the run directory as the rc.d script does for a user."""
        self.run_directory.mkdir()
        shutil.chown(self.run_directory, user)

    def state(self) -> str:
        """Return the state of the signal that the agent has stored."""
        return self.left("state")

    def left(self, name: str) -> str:
        """Return the content of a file that the agent has stored."""
        path = self.run_directory / name
        expect(path.is_file(), f"there is no {path}")
        return path.read_text()

    def until(self, holds: object, what: str) -> None:
        """Wait until a condition is true; if not, fail and say what did not happen."""
        assert callable(holds)
        expect(self.transcript.wait(holds, self.transcript.patience), what)

    @property
    def openbsd(self) -> OpenBSD:
        """The system, for a claim that is checked on OpenBSD only."""
        assert self.system.name == OPENBSD
        return cast("OpenBSD", self.system)

    def popen_user(self, user: str | None) -> str | None:
        """Return the user to start a process as; on Linux, the command switches."""
        return user if self.system.name != "Linux" else None


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds, to be printed."""
    return f"{seconds * 1000:.0f} ms"


def gone(pid: int) -> bool:
    """Tell whether a process does not exist or is a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return run(["ps", "-o", "stat=", "-p", str(pid)]).out.strip()[:1] in {"", "Z"}


def seconds_since(moment: float) -> float:
    """Return the seconds since a moment."""
    return time.monotonic() - moment
