"""scw-signal-state: sends the signal by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scw_signal import agent, wire
from scw_signal.cli import process
from scw_signal.cli.options import ONCE, URL, VERBOSE, Command, Option, timeout
from scw_signal.cli.session import Session
from scw_signal.errors import ScwSignalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_SECONDS = 30.0

COMMAND = Command(
    "scw-signal-state",
    "STATE",
    "Tell the cloud that this server is in STATE, as in: scw-signal-state booted",
    (
        timeout(TIMEOUT_SECONDS),
        ONCE,
        Option("quiet", "print nothing but errors", letter="q"),
        VERBOSE,
        URL,
    ),
)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status, raises ScwSignalError."""
    arguments = COMMAND.parse(argv)
    if process.informed(COMMAND, arguments):
        return process.OK
    if len(arguments.operands) != 1:
        raise UsageError("give one state, as in: scw-signal-state booted")
    state = wire.valid_state(arguments.operands[0])
    with Session(COMMAND, arguments, TIMEOUT_SECONDS) as session:
        receipt = agent.signal(session.service, state, session.patience)
        confirmed = receipt.confirmed or _confirmed(session, state)
    if arguments.has("quiet"):
        return process.OK
    if not confirmed:
        process.warn(COMMAND.name, "sent, but the service did not confirm it")
    process.write(f"{state} signal sent!\n")
    return process.OK


def _confirmed(session: Session, state: str) -> bool:
    """Look once in the document for the state, which the reply did not name."""
    try:
        metadata = agent.ask(session.service, session.patience.remaining())
    except ScwSignalError:
        return False
    return agent.confirms(metadata, state)
