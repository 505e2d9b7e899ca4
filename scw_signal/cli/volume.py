"""Is all of the volume used? OpenBSD's mount(8) and disklabel(8) tell. Pure.

Enlarging a volume in the cloud's console does not enlarge its partitions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Run = Callable[[Sequence[str]], tuple[int, str] | None]

UNUSED = 500_000_000  # bytes; less is due to rounding, and no cloud sells so little
WHOLE = "c"  # the partition that stands for the whole disk
_ROOT = re.compile(r"^/dev/([a-z]+\d+)[a-zA-Z] on / ", re.MULTILINE)
_PARTITION = re.compile(r"^  ([a-zA-Z]): +(\d+) +(\d+) ", re.MULTILINE)


def examine(run: Run) -> tuple[bool, str]:
    """Tell whether all of the root disk is used, and describe it in a line."""
    _, mounted = run(("mount",)) or (1, "")
    root = _ROOT.search(mounted)
    if root is None:
        return True, "mount(8) shows no disk for /"
    disk = root[1]
    _, label = run(("disklabel", disk)) or (1, "")
    left = unused(label)
    if left is None:
        return True, "only root can see whether all of the volume is used"
    if left < UNUSED:
        return True, f"all of {disk} is used"
    return False, f"{left / 1e9:.1f} GB of {disk} are unused; see scw-signald(8)"


def unused(label: str) -> int | None:
    """Return the bytes after the last partition, or None if this is not a label."""
    size, total = (
        re.search(rf"^{name}: (\d+)$", label, re.MULTILINE)
        for name in ("bytes/sector", "total sectors")
    )
    if size is None or total is None:
        return None
    ends = [
        int(length) + int(offset)
        for letter, length, offset in _PARTITION.findall(label)
        if letter != WHOLE
    ]
    return (int(total[1]) - max(ends, default=0)) * int(size[1])
