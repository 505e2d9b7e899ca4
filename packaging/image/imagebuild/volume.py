"""Inspects a block device of Linux before it is overwritten."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from scw_signal.terminal import printable

from .destination import Volume
from .errors import BuildError

SYSFS_SECTOR = 512  # the unit of sysfs for every device
HEAD_BYTES = 1 << 20  # bytes in which partition tables and superblocks are


def look(path: Path, sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> Volume:
    """Return what is known about a volume; raises BuildError, OSError."""
    path = path.resolve()
    if not stat.S_ISBLK(path.stat().st_mode):
        raise BuildError(f"{printable(str(path))} is not a block device")
    place = sys / "class/block" / path.name
    if not place.is_dir() or (place / "partition").exists():
        raise BuildError(f"{printable(str(path))} is not a whole volume")
    parts = [each.parent for each in place.glob("*/partition")]
    serials = (place / "serial", place / "device/serial")
    serial = next((text for each in serials if (text := _text(each))), "")
    used = [use for each in (place, *parts) for use in _uses(each, proc)]
    start = _start(path)
    if start is None and not used:
        used = ["something holds it, perhaps another mount namespace"]
    return Volume(
        path=path,
        size=int(_text(place / "size") or 0) * SYSFS_SECTOR,
        serial=serial,
        used=used,
        partitions=len(parts),
        empty=start is not None and not any(start),
    )


def _uses(place: Path, proc: Path) -> list[str]:
    """Return what uses a device; the kernel identifies it by its number."""
    number = _text(place / "dev")
    mounts = [line.split() for line in _text(proc / "self/mountinfo").splitlines()]
    uses = [f"mounted on {words[4]}" for words in mounts if words[2] == number]
    swaps = [line.split()[0] for line in _text(proc / "swaps").splitlines()[1:] if line]
    uses += ["swap" for name in swaps if Path(name).name == place.name]
    holders = place / "holders"
    held = sorted(each.name for each in holders.iterdir()) if holders.is_dir() else []
    return uses + [f"part of {name}" for name in held]


def _start(path: Path) -> bytes | None:
    """Return the first bytes of a device, or None if the kernel says it is in use."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_EXCL)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        return file.read(HEAD_BYTES)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""
