"""What a command needs in order to talk to the service."""

from __future__ import annotations

import functools
import gc
import math
import os
import time
from typing import TYPE_CHECKING, final

from scw_signal import sandbox, wire
from scw_signal.agent import Patience
from scw_signal.cli import process
from scw_signal.cli.light_transport import transport
from scw_signal.clock import Clock
from scw_signal.network import Network
from scw_signal.resolver import Resolver
from scw_signal.stop import Stop
from scw_signal.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from scw_signal.cli.options import Arguments, Command
    from scw_signal.errors import ScwSignalError

# For one exchange: a user waits, and has less patience than the agent.
TRY_SECONDS = 5.0


@final
class Session:
    """The service, and the patience to ask it, as the options say.

    A context manager: in it Ctrl-C ends every wait. At its end the progress line is
    cleared.
    """

    def __init__(
        self,
        command: Command,
        arguments: Arguments,
        seconds: float,
        *,
        variables: tuple[str, ...] = ("METADATA_IP",),
        reserved: bool = False,
    ) -> None:
        """Take the default for --timeout, in seconds; raises UsageError.

        `variables` of the environment may hold the address of the service;
        `reserved` means to ask from a port below 1024.
        """
        seconds = arguments.seconds("timeout", seconds)
        self._endpoints = wire.endpoints(arguments.all("url"), os.environ, variables)
        self._stop = Stop()
        self._progress = Progress(command, arguments)
        self._clock = Clock(self._stop, self._progress.tick)
        self._network: Network | None = None
        self.service = transport.Service(
            self._endpoints,
            self._clock,
            transport.reserved_socket if reserved else transport.stream_socket,
            resolve=Resolver(self._clock).addresses,
            seconds=TRY_SECONDS,
            begin=self._progress.begin,
        )
        self.patience = Patience(
            self._clock,
            seconds or math.inf,
            self._pause,
            self._progress.failed,
            once=arguments.has("once"),
            limit="--timeout",
        )
        if sandbox.available():
            self._confine(command)

    def _confine(self, command: Command) -> None:
        """Pledge, after loading and opening what pledge(2) forbids later."""
        sandbox.preload()
        self._network = Network(self._endpoints, self._clock)
        say = functools.partial(process.warn, command.name)
        sandbox.Sandbox(debug=lambda _: None, warn=say).restrict()

    def __enter__(self) -> Session:
        """Take over Ctrl-C."""
        self._stop.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clear the progress line; raises Stopped if no wait has seen Ctrl-C yet."""
        self._progress.clear()
        self._stop.__exit__(kind, error, trace)

    def _pause(self, seconds: float, floor: float) -> None:
        gc.enable()  # this may take a while after all
        if self._network is None:  # only a first try that failed needs it
            self._network = Network(self._endpoints, self._clock)
        self._network.pause(seconds, floor)


class Progress:
    """Says on standard error what the command waits for.

    On a terminal it rewrites one line; with --verbose it prints one line for each
    try; otherwise, and with --quiet, it prints nothing.
    """

    def __init__(
        self,
        command: Command,
        arguments: Arguments,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the command, its arguments, and the clock."""
        self._name = command.name
        self._now = now
        self._verbose = arguments.has("verbose")
        self._rewrite = (
            not self._verbose and not arguments.has("quiet") and os.isatty(2)
        )
        # Asked now, since later it would need the promise tty: pledge(2).
        self._columns = _columns() if self._rewrite else 0
        self._shown = False
        self._try = 1
        self._asked: tuple[str, float] | None = None  # a host, and since when

    def begin(self, host: str) -> None:
        """Note that a host is asked from now on."""
        self._asked = host, self._now()

    def tick(self) -> None:
        """Say which host has not answered, once that has taken a second."""
        if self._asked is None or not self._rewrite:
            return
        host, since = self._asked
        seconds = int(self._now() - since)
        if seconds > 0:
            self._line(f"waiting for {host} (try {self._try}, {seconds} s)")

    def failed(self, error: ScwSignalError, tries: int, delay: float) -> None:
        """Say that a try failed, and the seconds until the next."""
        self._asked = None
        self._try = tries + 1
        if self._verbose:
            text = printable(f"{error}; try {self._try} in {delay:.1f} s", 300)
            self._write(f"{self._name}: {text}\n")
        elif self._rewrite:
            # The numbers come first, since the end of a long line is cut.
            self._line(f"try {self._try} in {delay:.1f} s: {error}")

    def clear(self) -> None:
        """Clear the rewritten line."""
        if self._shown:
            self._write("\r\x1b[K")

    def _line(self, text: str) -> None:
        self._shown = True
        self._write(f"\r{printable(text, 300)[: self._columns - 1]}\x1b[K")

    def _write(self, text: str) -> None:
        try:
            os.write(2, text.encode(errors="replace"))
        except OSError:
            pass  # nobody reads it


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80
