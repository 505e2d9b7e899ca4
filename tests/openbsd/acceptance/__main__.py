"""Runs the claims. ../accept checks the machine, and then starts this."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .claim import CLAIMS, Failed, Interrupted
from .claims import load
from .enclosure import SIGNALS
from .lab import Lab
from .linux import Linux
from .openbsd import OpenBSD
from .system import RefusedError
from .tap import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .claim import Claim

TOP = Path(__file__).resolve().parents[3]
PATIENCE = 60.0  # seconds that one wait may take, on an emulated machine as well


def main(argv: Sequence[str]) -> int:
    """Run the claims; return the exit status."""
    load()
    options = _options(argv)
    chosen = [claim for claim in CLAIMS if _chosen(claim, options.only)]
    unknown = set(options.only) - {claim.name for claim in CLAIMS}
    if unknown:
        return _refuse(f"no claim has the name {min(unknown)}: see --list")
    if options.list:
        print("\n".join(f"{claim.name:30}{claim.says}" for claim in chosen))
        return 0
    try:
        system = _system(options)
        if options.plan:
            print("\n".join(system.plan()))
            return 0
        system.check()
        system.enclose()
    except RefusedError as error:
        return _refuse(str(error))
    return _run(system, chosen, options.patience)


def _run(system: Linux | OpenBSD, chosen: Sequence[Claim], patience: float) -> int:
    """Prepare the machine and check the claims; always undo the changes."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    signal.signal(signal.SIGALRM, _too_long)
    report = Report(sys.stdout, len(chosen))
    ended = 0
    try:
        system.prepare()
        for claim in chosen:
            _check(system, claim, report, patience)
    except Interrupted as interrupted:
        ended = interrupted.number
        report.bail_out(f"interrupted by {signal.Signals(ended).name}")
    except (Failed, OSError, RefusedError) as error:
        report.failed += 1
        report.bail_out(str(error))
    finally:
        for number in SIGNALS:  # the rest is quick; let it finish
            signal.signal(number, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        system.restore()
    report.end()
    return 128 + ended if ended else int(report.failed > 0)


def _check(
    system: Linux | OpenBSD, claim: Claim, report: Report, patience: float
) -> None:
    """Check one claim, and clean up after it."""
    says = f"{claim.name}: {claim.says}"
    if claim.only and claim.only != system.name:
        report.skip(says, f"{claim.only}'s alone")
        return
    lab = Lab(system, TOP, patience)
    failure, figure = None, None
    signal.setitimer(signal.ITIMER_REAL, claim.seconds)
    try:
        figure = claim.check(lab)
    except Failed as failed:
        failure = str(failed)
    except Exception as error:  # noqa: BLE001 - a fault of this test fails one claim
        failure = f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        lab.close()
        system.reset()
    kills = system.watch()
    if len(kills) != lab.expected_kills and failure is None:
        failure = f"{len(kills)} were killed by pledge(2) or left a core file"
    if failure is None:
        report.ok(says, figure or "")
    else:
        report.not_ok(says, [f"seen: {failure}", *kills, *lab.transcript.shown()])


def _interrupt(number: int, _: object) -> NoReturn:
    raise Interrupted(number)


def _too_long(_: int, __: object) -> NoReturn:
    raise Failed("this takes too long")


def _system(options: argparse.Namespace) -> Linux | OpenBSD:
    name = os.uname().sysname
    if name == "Linux":
        return Linux(TOP, options.package)
    if name == "OpenBSD":
        return OpenBSD(TOP, options.pairs, options.rdomains)
    raise RefusedError(f"this is for OpenBSD and Linux, not for {name}")


def _chosen(claim: Claim, only: Sequence[str]) -> bool:
    return not only or claim.name in only


def _refuse(reason: str) -> int:
    print(f"accept: {reason}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line; the usage is ../accept's."""
        self.exit(2, f"accept: {message}\n")


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="accept", allow_abbrev=False, add_help=False)
    add = parser.add_argument
    add("-n", dest="plan", action="store_true")
    add("--list", action="store_true")
    add("--only", action="append", default=[])
    add("--package", type=Path, default=TOP)
    add("--pairs", type=_two, default=(242, 243))
    add("--rdomains", type=_two, default=(242, 243))
    add("--patience", type=float, default=PATIENCE)
    return parser.parse_args(argv)


def _two(text: str) -> tuple[int, int]:
    match = re.fullmatch("([0-9]{1,5}),([0-9]{1,5})", text)
    if match is None or int(match[1]) == int(match[2]):
        raise argparse.ArgumentTypeError(f"not two numbers, as in 242,243: {text}")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
