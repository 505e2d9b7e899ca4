"""scw-signald: the agent that rc.d starts."""

from __future__ import annotations

import importlib
import math
import os
import signal
from typing import TYPE_CHECKING

from scw_signal.cli import process
from scw_signal.cli.options import RUN_DIR, URL, Command, Option
from scw_signal.errors import ScwSignalError, StoreError, UsageError
from scw_signal.store import RUN_DIRECTORY, Store
from scw_signal.terminal import printable

process.forgo_tls()

from scw_signal import agent, log, wire  # noqa: E402
from scw_signal.clock import Clock  # noqa: E402
from scw_signal.network import Network  # noqa: E402
from scw_signal.resolver import Resolver  # noqa: E402
from scw_signal.sandbox import Sandbox  # noqa: E402
from scw_signal.transport import Service  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from scw_signal.cli.options import Arguments

STATE = "booted"
DNS_NAME = "scaleway.com"
DNS_SECONDS = 15.0
LONGEST_NAME = 253  # characters of a host name, RFC 1035

COMMAND = Command(
    "scw-signald",
    "",
    "Wait for network and DNS, tell the cloud that this server has booted,\n"
    "store its metadata, and leave.",
    (
        Option("debug", "log to standard error, not to syslog", letter="d"),
        Option("verbose", "log details", letter="v"),
        Option("deadline", "for the signal; for ever if not given", metavar="SECONDS"),
        Option("dns-name", f"to ask the resolver for ({DNS_NAME})", metavar="NAME"),
        Option("dns-timeout", "how long to wait for DNS (15)", metavar="SECONDS"),
        Option("no-dns", "do not wait for DNS"),
        RUN_DIR,
        URL,
    ),
)


class Stopped(BaseException):
    """SIGTERM or SIGINT came; no handler of ordinary errors shall hold it up."""

    def __init__(self, number: int) -> None:
        """Take the signal's number."""
        super().__init__(number)
        self.number = number


def main(argv: Sequence[str]) -> int:
    """Run the agent; returns the exit status, raises UsageError."""
    try:
        arguments = COMMAND.parse(argv)
        if process.informed(COMMAND, arguments):
            return process.OK
        journal = _journal(arguments)
        return _run(arguments, journal)
    except UsageError as error:
        # rc.d(8) hides standard error, and this is where one looks then.
        log.Log(log.to_syslog(COMMAND.name), verbose=False).error(str(error))
        raise


def _run(arguments: Arguments, journal: log.Log) -> int:
    """Put the agent together, confine it, and let it do its work."""
    if arguments.operands:
        operand = printable(arguments.operands[0], 40)
        raise UsageError(f"there are no operands, but one was given: {operand!r}")
    deadline = arguments.seconds("deadline", math.inf)
    clock = Clock()
    resolver = _resolver(arguments, clock)
    endpoints = wire.endpoints(arguments.all("url"), os.environ)
    store = _store(arguments, journal)
    network = Network(endpoints, clock)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        box = Sandbox(journal.debug)
        preload()
        box.enter(store.directory if store else None)
        agent.boot(
            agent.Parts(
                clock=clock,
                network=network,
                resolver=resolver,
                service=Service(endpoints, clock),
                store=store,
                log=journal,
                patience=lambda stage, seconds: agent.Patience(
                    clock,
                    seconds,
                    network.pause,
                    log.Reporter(stage, clock, journal).failed,
                    insist=True,
                ),
                # A question to the resolver still under way needs its promise.
                narrow=lambda stage: (
                    box.narrow(stage) if resolver is None or resolver.idle() else None
                ),
            ),
            STATE,
            deadline,
        )
    except ScwSignalError as error:
        journal.error(f"gave up: {error}")
        return process.FAILED
    except Stopped as stopped:
        journal.info(f"stopped by {signal.Signals(stopped.number).name}")
        process.die_of(stopped.number)
    return process.OK


def preload() -> None:
    """Import what is otherwise imported on the way, when no file can be opened.

    A host name is encoded by encodings.idna, which needs stringprep and, in a
    shared object, unicodedata; tenacity waits for the first failure.
    """
    for module in ("encodings.idna", "stringprep", "unicodedata"):
        importlib.import_module(module)
    importlib.import_module("scw_signal.retrying")


def _stop(number: int, _frame: FrameType | None) -> None:
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


def _journal(arguments: Arguments) -> log.Log:
    to = log.to_stderr if arguments.has("debug") else log.to_syslog
    return log.Log(to(COMMAND.name), verbose=arguments.has("verbose"))


def _resolver(arguments: Arguments, clock: Clock) -> Resolver | None:
    """Return who waits for DNS, or None for --no-dns."""
    seconds = arguments.seconds("dns-timeout", DNS_SECONDS)
    name = arguments.text("dns-name", DNS_NAME)
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise UsageError(f"--dns-name takes a host name; not {printable(name, 40)!r}")
    return None if arguments.has("no-dns") else Resolver(name, seconds, clock)


def _store(arguments: Arguments, journal: log.Log) -> Store | None:
    """Open the run directory, or say why the work goes on without it."""
    os.umask(0o022)  # the metadata is for every user's scripts
    try:
        return Store(arguments.text("run-dir", RUN_DIRECTORY))
    except StoreError as error:
        journal.warning(f"nothing will be left behind: {error}")
        return None
