"""The command line: `python3 -m scw_signal.emulator`."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from scw_signal import __version__
from scw_signal.emulator.document import printable
from scw_signal.emulator.faults import FAULTS, FILTERS, as_number, parse_fault
from scw_signal.emulator.platform import HIGH_PORT_WORDS, WRITE_STATUSES
from scw_signal.emulator.service import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scw_signal.emulator.history import Event

LAST_PORT = 65535

WIDTH = 79  # columns of --help

_EPILOG = f"""\
A fault meets the first COUNT requests that reach it, then comes the next fault.
Without COUNT it meets every request. ENDPOINT is one of {", ".join(FILTERS[:2])},
{" and ".join(FILTERS[2:])}: requests for the others pass by. For example

    --fault state/503:2 --fault state/429-after=3:1

fails two signals with 503 and one with 429, and takes the fourth.

Nobody can count connections to a closed port, so `refuse:5` closes it for 5
seconds when the faults before it are used up. Later faults come after that.

A fault does not take the signal unless this list says so.

faults:
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage."""
        self.exit(2, f"emulator: {printable(message, 500)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    options = _parser().parse_args(argv)
    log: Callable[[Event], None]
    log = _print_verbosely if options.__dict__.pop("verbose") else _print_line
    # Blocked before any thread starts, so that only sigwait below gets them.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        service = Emulator(**vars(options))
    except OSError as error:
        reason = printable(error.strerror or str(error))
        print(f"emulator: cannot listen: {reason}", file=sys.stderr)
        return 1
    with service:
        _print_line(service.url)
        service.follow(log)
        signal.sigwait(ends)
    return 0


def _print_line(line: object) -> None:
    try:
        print(line, flush=True)
    except OSError:  # the reader has left; the service goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_verbosely(event: Event) -> None:
    _print_line(event.verbose())


def _parser() -> _Parser:
    known = "".join(f"  {name:11}{kind.summary}\n" for name, kind in FAULTS.items())
    parser = _Parser(
        prog="python3 -m scw_signal.emulator",
        usage="%(prog)s [OPTION ...]",
        description="Emulate the metadata service of Scaleway. The first line of"
        " the output is\nits URL. A line for each event follows. SIGTERM or SIGINT"
        " ends it.",
        epilog=_EPILOG + known,
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    _add_service_options(parser)
    _add_data_options(parser)
    add = parser.add_argument
    add(
        "-v",
        "--verbose",
        action="store_true",
        help="begin each line with the time of day (UTC) and the client's address, in"
        " place of the seconds since the start",
    )
    add(
        "-V",
        "--version",
        action="version",
        version=f"scw_signal.emulator {__version__}",
        help="print the version and exit",
    )
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Wrap at a fixed width on every terminal, since the list of faults has one."""
    return argparse.RawDescriptionHelpFormatter(prog, width=WIDTH)


def _add_service_options(parser: _Parser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--port", type=_port, default=0, help="TCP port (0: a free one)")
    add(
        "--watchdog",
        type=_seconds,
        metavar="SECONDS",
        help="hard-reboot a server that has not signalled `booted` by then, as some"
        " ranges once did; whether any still do is not known (off)",
    )
    add(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        dest="faults",
        metavar="[ENDPOINT/]NAME[=ARG][:COUNT]",
        help="what goes wrong, see below; several come one after the other (nothing)",
    )


def _add_data_options(parser: _Parser) -> None:
    add = parser.add_argument
    add(
        "--doc",
        type=_document,
        dest="document",
        metavar="FILE",
        help="metadata, a JSON object (that of a made-up server)",
    )
    add(
        "--user-data",
        type=_user_data,
        action="append",
        default=[],
        metavar="KEY=FILE",
        help="user data, the bytes of a file; may be repeated (none)",
    )
    add(
        "--vendor-data",
        type=_bytes,
        metavar="FILE",
        help="what /vendor_data/cloud-init answers (404)",
    )
    add(
        "--write-status",
        type=int,
        choices=WRITE_STATUSES,
        default=WRITE_STATUSES[0],
        help="answer to a change of user data; what the service sends is not known"
        f" ({WRITE_STATUSES[0]})",
    )
    ports = parser.add_mutually_exclusive_group()
    high, *_ = HIGH_PORT_WORDS
    ports.add_argument(
        "--high-port-status",
        type=int,
        choices=HIGH_PORT_WORDS,
        default=high,
        help="answer to requests for user or vendor data from a port above 1023; 400"
        f" comes with the words `{HIGH_PORT_WORDS[400]}` ({high})",
    )
    ports.add_argument(
        "--any-port",
        action="store_true",
        help="do not look at the port that asks; needed behind a relay such as QEMU's"
        " guestfwd, which uses other ports",
    )


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > LAST_PORT:
        raise argparse.ArgumentTypeError(f"not a number from 0 to {LAST_PORT}: {text}")
    return int(text)


def _seconds(text: str) -> float:
    if not 0 < as_number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"not a number of seconds above 0: {text}")
    return float(text)


def _fault(text: str) -> str:
    try:
        parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _user_data(text: str) -> tuple[str, bytes]:
    key, equals, name = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"not KEY=FILE: {text}")
    return key, _bytes(name)


def _bytes(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        reason = f"cannot read {name}: {error.strerror}"
        raise argparse.ArgumentTypeError(reason) from None


def _document(name: str) -> dict[str, object]:
    try:
        document = json.loads(_bytes(name))
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError(f"not JSON: {name}") from None
    if not isinstance(document, dict):
        raise argparse.ArgumentTypeError(f"not a JSON object: {name}")
    return document
