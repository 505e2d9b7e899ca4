"""Whether all of the volume is used, as OpenBSD's own programs show it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from scw_signal.cli import checkup, volume

if TYPE_CHECKING:
    from collections.abc import Sequence

MOUNTED = """\
/dev/sd1a on /data type ffs (local)
/dev/sd0a on / type ffs (local)
/dev/sd0d on /tmp type ffs (local, nodev, nosuid)
"""
# As display_partition of disklabel(8) prints it.
LABEL = """\
# /dev/rsd0c:
type: SCSI
duid: 63b2f5ea5eddb0bd
bytes/sector: 512
total sectors: {total}
boundstart: 532544
boundend: 19531216

16 partitions:
#                size           offset  fstype [fsize bsize   cpg]
  a:          1433600           532544  4.2BSD   2048 16384 11200 # /
  b:          1048576          1966144    swap                    # none
  c:         {total:8}                0  unused                    
  h:         16516496          3014720  4.2BSD   2048 16384 12960 # /home
  i:           532480               64   MSDOS                    
"""  # noqa: W291 - it prints trailing blanks
END = 3014720 + 16516496  # of h


def examined(
    total: int, label: str = LABEL, mounted: str = MOUNTED
) -> tuple[bool, str]:
    def run(words: Sequence[str]) -> tuple[int, str] | None:
        return {
            ("mount",): (0, mounted),
            ("disklabel", "sd0"): (0, label.format(total=total)),
        }.get(tuple(words))

    return volume.examine(run)


def test_a_volume_that_is_used_to_its_end_is_fine() -> None:
    assert examined(END + 34) == (True, "all of sd0 is used")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (volume.UNUSED // 512 - 1, (True, "all of sd0 is used")),
        (10**9 // 512, (False, "1.0 GB of sd0 are unused; see scw-signald(8)")),
        (10**12 // 512, (False, "1000.0 GB of sd0 are unused; see scw-signald(8)")),
    ],
)
def test_an_enlarged_volume_is_reported(more: int, expected: tuple[bool, str]) -> None:
    assert examined(END + more) == expected


@pytest.mark.parametrize(
    "label", ["", "bytes/sector: 512\n", "total sectors: {total}\n", "\0"]
)
def test_without_a_readable_label_it_says_that_only_root_can_see(label: str) -> None:
    well, text = examined(END, label)
    assert (well, text) == (
        True,
        "only root can see whether all of the volume is used",
    )


def test_it_is_a_warning_among_the_checks() -> None:
    answers = {("mount",): MOUNTED, ("disklabel", "sd0"): LABEL.format(total=10**9)}
    tools = SimpleNamespace(run=lambda words: (0, answers[tuple(words)]))
    finding = checkup._volume(cast("checkup.Tools", tools))
    assert (finding.check, finding.verdict) == ("volume", checkup.WARN)


def test_a_root_that_is_no_disk_is_no_alarm() -> None:
    assert examined(END, mounted="tmpfs on / type tmpfs (local)\n")[0]


def test_a_system_without_these_programs_is_no_alarm() -> None:
    assert volume.examine(lambda _: None)[0]
