"""scw-metadata-json: the vendor's name for scw-metadata --json."""

from __future__ import annotations

from scw_signal import flat
from scw_signal.cli import metadata, process
from scw_signal.cli.options import Command

TYPE_CHECKING = False  # see render
if TYPE_CHECKING:
    from collections.abc import Sequence

_TAKEN = {
    "cached", "max-age", "timeout", "once", "quiet", "verbose", "run-dir", "url",
}  # fmt: skip

COMMAND = Command(
    "scw-metadata-json",
    "[KEY ...]",
    "Print the metadata of this server, or the parts that keys name, as JSON.",
    [option for option in metadata.COMMAND.options if option.name in _TAKEN],
)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status, raises ScwSignalError."""
    arguments = COMMAND.parse(argv)
    if process.informed(COMMAND, arguments):
        return process.OK
    arguments.seconds("max-age", 0.0)
    keys = [flat.canonical(key) for key in arguments.operands]
    process.write(metadata.as_json(arguments, keys))
    return process.OK
