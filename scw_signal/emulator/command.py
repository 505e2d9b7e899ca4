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

from scw_signal.emulator.document import printable
from scw_signal.emulator.faults import FAULTS, FILTERS, as_number, parse_fault
from scw_signal.emulator.service import Emulator

if TYPE_CHECKING:
    from collections.abc import Sequence

LAST_PORT = 65535

_EPILOG = f"""\
A fault is for the first COUNT requests that reach it, and then the next fault is;
without COUNT it is for good. ENDPOINT is {" or ".join(FILTERS)}: requests for others
pass the fault by. `--fault state/503:2 --fault state/429-after=3:1` fails two
signals with 503 and one with 429, and takes the fourth.

Nobody can count connections to a closed port: `refuse:5` closes it for 5 seconds
when the faults before it are used up, and those behind it come after that.

A signal is not taken unless it says so here.

faults:
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage."""
        self.exit(2, f"emulator: {printable(message, 500)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    options = _parser().parse_args(argv)
    # Blocked before there is any thread, and taken by sigwait below: a signal
    # interrupts nothing, whenever it comes.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        service = Emulator(**vars(options))
    except OSError as error:
        reason = printable(error.strerror or str(error))
        print(f"emulator: can not listen: {reason}", file=sys.stderr)
        return 1
    with service:
        _print_line(service.url)
        service.follow(_print_line)
        signal.sigwait(ends)
    return 0


def _print_line(line: object) -> None:
    try:
        print(line, flush=True)
    except OSError:  # whoever read it has left; the service stays
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> _Parser:
    known = "".join(f"  {name:11}{kind.summary}\n" for name, kind in FAULTS.items())
    parser = _Parser(
        prog="python3 -m scw_signal.emulator",
        description="Emulate the metadata service of Scaleway.\nThe first line"
        " of the output is its URL; then comes a line for each event.",
        epilog=_EPILOG + known,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--port", type=_port, default=0, help="TCP port; 0, the default: a free one")
    add("--doc", type=_document, dest="document", metavar="FILE", help="metadata, JSON")
    add(
        "--user-data",
        type=_user_data,
        action="append",
        default=[],
        metavar="KEY=FILE",
        help="user data, the bytes of a file; may be repeated",
    )
    add("--vendor-data", type=_bytes, metavar="FILE", help="what cloud-init would get")
    add(
        "--any-port",
        action="store_true",
        help="answer for user and vendor data whatever port asks, not only below 1024",
    )
    add(
        "--watchdog",
        type=_seconds,
        metavar="SECONDS",
        help="hard-reboot a server that has not signalled `booted` by then, as some"
        " ranges once did; whether any still do is not known",
    )
    add(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        dest="faults",
        metavar="[ENDPOINT/]NAME[=ARG][:COUNT]",
        help="what goes wrong, see below; several come one after the other",
    )
    return parser


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
        reason = f"can not read {name}: {error.strerror}"
        raise argparse.ArgumentTypeError(reason) from None


def _document(name: str) -> dict[str, object]:
    try:
        document = json.loads(_bytes(name))
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError(f"not JSON: {name}") from None
    if not isinstance(document, dict):
        raise argparse.ArgumentTypeError(f"not a JSON object: {name}")
    return document
