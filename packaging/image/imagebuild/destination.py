"""The files beside an image, and which volume may be overwritten; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from scw_signal.terminal import printable

from .commands import GIGABYTE
from .errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .commands import Build

SUFFIX = ".qcow2"  # the import accepts no other


class Volume(NamedTuple):
    """A block device, and what would be lost on it."""

    path: Path
    size: int  # bytes
    serial: str
    used: Sequence[str]  # its users: mounts, swap, other devices
    partitions: int
    empty: bool  # at its start


def check_name(output: Path) -> None:
    """Check the name of an image for the import; raises BuildError."""
    if not output.name.endswith(SUFFIX) or output.name == SUFFIX:
        raise BuildError(
            f"{printable(output.name)!r} does not end in {SUFFIX}: the cloud imports"
            " nothing else"
        )


def check_volume(volume: Volume, needed: int, overwrite: str) -> None:
    """Check that a volume may be overwritten; raises BuildError.

    A volume in use never may. One with data on it may, if its serial number or its
    size in bytes was given, which nobody does by mistake.
    """
    name = printable(str(volume.path))
    if volume.used:
        raise BuildError(f"{name} is in use: {printable(', '.join(volume.used))}")
    if volume.size < needed:
        raise BuildError(
            f"{name} has {volume.size / GIGABYTE:.1f} GB, and"
            f" {needed / GIGABYTE:.1f} GB are needed"
        )
    if overwrite and overwrite not in {volume.serial, str(volume.size)}:
        raise BuildError(f"{name} has neither this serial number nor this size")
    if overwrite or (volume.empty and not volume.partitions):
        return
    what = f"{volume.partitions} partitions" if volume.partitions else "data"
    names = " or ".join(filter(None, (volume.serial, str(volume.size))))
    raise BuildError(
        f"{name} has {what} on it: --overwrite {names} if that may be lost"
    )


def checksum_line(name: str, digest: str) -> str:
    """Return a line in the form of sha256(1), which sha256 -c reads."""
    return f"SHA256 ({name}) = {digest}\n"


def description(
    build: Build, release: str, packages: Sequence[str], seen: Sequence[str]
) -> str:
    """Return the text beside an image: its contents, and the results of the trial."""
    system = build.system
    keys = [
        *(["the one given"] if system.ssh_key else []),
        *(["those of the cloud's console"] if build.options.console_keys else []),
    ]
    rows = {
        "OpenBSD": f"{system.release} amd64, from {build.check.image.name}",
        "sets": system.sets or "all",
        "scw-signal": release,
        "disk": f"{build.gigabytes} GB",
        "layout": ", ".join(build.layout.splitlines()) or "the installer's own",
        "host name": system.hostname,
        "time zone": system.timezone,
        "SSH keys": " and ".join(keys),
        "packages": " ".join(packages) or "added at the first boot, from a mirror",
        "tried": "; ".join(seen) or "no",
    }
    return "".join(f"{name + ':':12}{printable(text)}\n" for name, text in rows.items())
