"""scw-signald: the agent that rc.d starts."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import sys
from typing import TYPE_CHECKING

from scw_signal import agent, libraries, log, sandbox, wire
from scw_signal.cli import checkup, process
from scw_signal.cli.options import RUN_DIR, URL, Command, Option
from scw_signal.clock import Clock
from scw_signal.errors import ScwSignalError, Stopped, StoreError, UsageError
from scw_signal.network import Network
from scw_signal.resolver import Resolver
from scw_signal.stop import Stop
from scw_signal.store import RUN_DIRECTORY, Store
from scw_signal.terminal import printable

if TYPE_CHECKING:
    import pwd
    from collections.abc import Sequence

    from scw_signal import transport
    from scw_signal.cli.options import Arguments
    from scw_signal.privileged import Parent

STATE = "booted"
DNS_NAME = "scaleway.com"
DNS_SECONDS = 15.0
_SYSTEMD = "/run/systemd/system"  # exists if systemd runs: sd_booted(3)

COMMAND = Command(
    process.AGENT,
    "",
    "Wait for network and DNS, tell the cloud that this server has booted,\n"
    "store its metadata, and leave.",
    (
        Option("debug", "log to standard error, not to syslog", letter="d"),
        Option("verbose", "log details, and every try", letter="v"),
        Option("check", "say what is wrong; signal nothing", letter="n"),
        Option("json", "with -n: print JSON"),
        Option("deadline", "how long to try to signal (0: forever)", metavar="SECONDS"),
        Option("dns-name", f"the name to ask DNS for ({DNS_NAME})", metavar="NAME"),
        Option(
            "dns-timeout",
            f"how long to wait for DNS ({DNS_SECONDS:g})",
            metavar="SECONDS",
        ),
        Option("no-dns", "do not wait for DNS"),
        Option("set-hostname", "set the console's host name before the signal (root)"),
        Option("run-user-data", "run the user data's script before the signal (root)"),
        RUN_DIR,
        URL,
    ),
)


def main(argv: Sequence[str]) -> int:
    """Run the agent; returns the exit status, raises UsageError."""
    arguments = COMMAND.parse(argv)
    if process.informed(COMMAND, arguments):
        return process.OK
    setup = _Setup(arguments)
    return _check(setup) if arguments.has("check") else _serve(setup)


class _Setup:
    """The settings from the command line; raises UsageError."""

    def __init__(self, arguments: Arguments) -> None:
        if arguments.operands:
            operand = printable(arguments.operands[0], 40)
            raise UsageError(f"unexpected operand: {operand!r}")
        if arguments.has("json") and not arguments.has("check"):
            raise UsageError("--json goes with -n")
        self.endpoints = wire.endpoints(arguments.all("url"), os.environ)
        self.deadline = arguments.seconds("deadline", 0) or math.inf
        self.directory = arguments.text("run-dir", RUN_DIRECTORY)
        self.dns = not arguments.has("no-dns")
        self.dns_name = arguments.text("dns-name", DNS_NAME)
        self.dns_seconds = arguments.seconds("dns-timeout", DNS_SECONDS)
        if (
            not 0 < len(self.dns_name) <= wire.LONGEST_NAME
            or not self.dns_name.isprintable()
        ):
            name = printable(self.dns_name, 40)
            raise UsageError(f"--dns-name takes a host name; not {name!r}")
        self.hostname = arguments.has("set-hostname")
        self.user_data = arguments.has("run-user-data")
        self.json = arguments.has("json")
        self.debug = arguments.has("debug")
        self.verbose = arguments.has("verbose")


def _check(setup: _Setup) -> int:
    """Say what is wrong; the status is 0 if the signal would go out."""
    clock = Clock()
    resolver = Resolver(clock)
    tools = checkup.Tools(
        system=checkup.this_system(),
        endpoints=setup.endpoints,
        service=lambda endpoints: _service(endpoints, clock, resolver),
        resolver=resolver,
        run=checkup.run,
        directory=setup.directory,
        dns_name=setup.dns_name,
        library_fault=libraries.fault(sys.path),
    )
    findings = []
    for finding in checkup.examine(tools):
        findings.append(finding)
        if not setup.json:
            process.write(f"{finding.line()}\n")
    conclusion = checkup.conclude(findings, tools.system, STATE)
    if setup.json:
        process.write(json.dumps(_answer(findings, conclusion), indent=2) + "\n")
    else:
        process.write(f"{conclusion.line()}\n")
    return process.OK if conclusion.good else process.FAILED


def _answer(
    findings: Sequence[checkup.Finding], conclusion: checkup.Conclusion
) -> dict[str, object]:
    """Return what -n --json prints."""
    known = checkup.facts(findings)
    return {
        "verdict": conclusion.word,
        "would_signal": conclusion.good,
        "advice": conclusion.advice,
        **{name: known.get(name) for name in ("state_detail", "zone", "url")},
        "findings": [
            {"check": each.check, "verdict": each.verdict, "text": each.text}
            for each in findings
        ],
    }


def _service(
    endpoints: Sequence[wire.Endpoint],
    clock: Clock,
    resolver: Resolver,
    parent: Parent | None = None,
) -> transport.Service:
    """Return the service; with a parent, it is asked from a reserved port."""
    from scw_signal.cli.light_transport import transport  # noqa: PLC0415 - the check may have none

    connect = parent.reserved_socket if parent else transport.stream_socket
    return transport.Service(endpoints, clock, connect, resolve=resolver.addresses)


def _serve(setup: _Setup) -> int:
    """Do the work of a boot; if a signal stops it, end this process by that signal."""
    # Before the lock-down; raises ScwSignalError if the libraries do not fit.
    import scw_signal.cli.light_transport  # noqa: F401, PLC0415

    gc.enable()  # without a network the agent may wait for days
    sink = log.to_stderr if setup.debug else log.to_syslog
    if not setup.debug and os.isatty(2):
        where = log.place(sys.platform, systemd=os.path.isdir(_SYSTEMD))  # noqa: PTH112
        process.warn(COMMAND.name, f"logging to {where}; -d logs here")
    journal = log.Log(sink(COMMAND.name), verbose=setup.verbose)
    try:
        with Stop() as stop:
            return _boot(setup, journal, stop)
    except Stopped as stopped:
        journal.info(f"stopped by {signal.Signals(stopped.number).name}")
        process.die_of(stopped.number)


def _boot(setup: _Setup, journal: log.Log, stop: Stop) -> int:
    """Build the agent, confine it, and let it work."""
    parent = _split(setup, journal, stop)
    try:
        agent.boot(_parts(setup, journal, stop, parent), STATE, setup.deadline)
    except ScwSignalError as error:
        journal.error(str(error))
        return process.FAILED
    return process.OK


def _split(setup: _Setup, journal: log.Log, stop: Stop) -> Parent | None:
    """Split off a parent for the work that needs root; return it to the agent.

    Returns None if no work needs root, and also if there can be no parent: a server
    that signals without being prepared is better than one that does not signal.
    """
    if not (setup.hostname or setup.user_data):
        return None
    if os.geteuid() != 0:
        journal.error("--set-hostname and --run-user-data need root: ignored")
        return None
    from scw_signal.cli.split import split  # noqa: PLC0415 - few agents are split

    try:
        return split(
            stop,
            journal,
            hostname=setup.hostname,
            user_data=setup.user_data,
            to_stderr=setup.debug,
        )
    except OSError as error:
        journal.error(
            "cannot start the root process, so --set-hostname and --run-user-data are"
            f" ignored: {error.strerror}"
        )
        return None


def _parts(
    setup: _Setup, journal: log.Log, stop: Stop, parent: Parent | None = None
) -> agent.Parts:
    """Open what the agent needs, and lock the rest away."""
    clock = Clock(stop)
    network = Network(setup.endpoints, clock)
    resolver = Resolver(clock)
    store = _store(setup.directory, journal)
    sandbox.preload()
    box = sandbox.Sandbox(journal.debug, journal.warning)
    user = sandbox.user_for_root()
    # In this order: later the user might not be allowed to search a parent directory.
    box.hide_files(store.directory if store else None)
    if user is not None:
        _leave_root(user, store, journal)
    box.pledge(receive=parent is not None)
    addresses_only = all(endpoint.is_numeric() for endpoint in setup.endpoints)

    def narrow(stage: str) -> None:
        # The promise dns is needed while a question to the resolver goes on, and for
        # each try if --url gave a host name.
        if resolver.idle() and (stage == "leave" or addresses_only):
            box.narrow(stage)

    def await_dns() -> bool:
        return resolver.await_answer(setup.dns_name, setup.dns_seconds)

    def patience(stage: str, seconds: float) -> agent.Patience:
        report = log.Reporter(stage, clock, journal).failed
        return agent.Patience(
            clock,
            seconds,
            network.pause,
            report,
            insist=stage != "prepare",  # after a refusal the signal must not wait
            unattended=True,
            limit="--deadline" if stage == "signal" else "",
        )

    return agent.Parts(
        clock=clock,
        network=network,
        await_dns=await_dns if setup.dns else None,
        service=_service(setup.endpoints, clock, resolver),
        store=store,
        log=journal,
        patience=patience,
        narrow=narrow,
        preparation=_preparation(setup, clock, resolver, parent) if parent else None,
    )


def _preparation(
    setup: _Setup, clock: Clock, resolver: Resolver, parent: Parent
) -> agent.Preparation:
    return agent.Preparation(
        root=parent,
        service=_service(setup.endpoints, clock, resolver, parent),
        hostname=setup.hostname,
        user_data=setup.user_data,
    )


def _store(directory: str, journal: log.Log) -> Store | None:
    """Open the run directory; if that fails, log why and return None."""
    try:
        return Store(directory)
    except StoreError as error:
        journal.warning(f"no files will be stored: {error}")
        return None


def _leave_root(user: pwd.struct_passwd, store: Store | None, journal: log.Log) -> None:
    """Switch to the agent's own user, if root started the agent."""
    if store is not None:
        try:
            store.chown(user.pw_uid, user.pw_gid)
        except OSError as error:
            journal.warning(f"{store.directory}: {error.strerror}")
    try:
        sandbox.switch_user(user)
    except OSError as error:
        journal.warning(f"going on as root: {user.pw_name}: {error.strerror}")
    else:
        journal.debug(f"going on as {user.pw_name}")
