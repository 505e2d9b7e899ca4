"""What an installed OpenBSD wrote to its disk: GPT, disklabel, file systems; pure.

It is read from outside while the machine is off, so nothing has to run in the guest.
The offsets are those of <sys/gpt.h>, <sys/disklabel.h> and <ufs/ffs/fs.h>.
"""

from __future__ import annotations

import string
import struct
import uuid
from typing import TYPE_CHECKING, NamedTuple

from .errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int], bytes]  # offset and length, in bytes

SECTOR = 512
OPENBSD = uuid.UUID("824cc7a0-36a8-11e3-890a-952519ad3f61").bytes_le
ENTRY = 128  # bytes at least
MOST_ENTRIES = 1024
LABEL_SIZE = 2 * SECTOR  # up to 52 partitions
MAGIC = 0x82564557
FFS = 7
# Where a superblock is (FFS1, FFS2), and its magic number.
SUPERBLOCKS = ((8192, 0x00011954), (65536, 0x19540119))
SUPERBLOCK_SIZE = 1376
MOUNTED_ON, LONGEST_MOUNT = 212, 468


class Partition(NamedTuple):
    """A partition of the disklabel, in sectors of the disk."""

    letter: str
    start: int
    sectors: int
    kind: int
    mounted_on: str  # the last mount point; empty if it has no file system of OpenBSD

    @property
    def end(self) -> int:
        """The sector after it."""
        return self.start + self.sectors


class Layout(NamedTuple):
    """The disk of a server."""

    uid: str  # 16 hexadecimal digits
    partitions: tuple[Partition, ...]

    def mounted_on(self, place: str) -> Partition | None:
        """Return the partition that was last mounted there, if there is one."""
        found = [each for each in self.partitions if each.mounted_on == place]
        return found[0] if found else None


def layout(read: Read) -> Layout:
    """Return the layout of a disk; raises BuildError if it is not OpenBSD's."""
    start = _openbsd(read)
    data = read((start + 1) * SECTOR, LABEL_SIZE)
    magic, again, count = (
        struct.unpack_from(form, data, at)[0]
        for form, at in (("<I", 0), ("<I", 132), ("<H", 138))
    )
    end = 148 + 16 * count
    if (magic, again) != (MAGIC, MAGIC) or end > len(data) or _checksum(data[:end]):
        raise BuildError("the disk has no disklabel, or a damaged one")
    partitions = []
    for number in range(count):
        size, low, high, size_high, kind = struct.unpack_from(
            "<IIHHB", data, 148 + 16 * number
        )
        sectors = size | size_high << 32
        letter = _letter(number)
        if sectors and letter != "c":  # c is the whole disk
            where = low | high << 32
            mount = _mounted_on(read, where) if kind == FFS else ""
            partitions.append(Partition(letter, where, sectors, kind, mount))
    return Layout(data[64:72].hex(), tuple(partitions))


def _openbsd(read: Read) -> int:
    """Return the first sector of the partition of OpenBSD."""
    header = read(SECTOR, SECTOR)
    where, count, size = struct.unpack_from("<QII", header, 72)
    if header[:8] != b"EFI PART" or size < ENTRY or not 0 < count <= MOST_ENTRIES:
        raise BuildError("the disk has no GPT")
    entries = read(where * SECTOR, count * size)
    for at in range(0, count * size, size):
        if entries[at : at + 16] == OPENBSD:
            first: int = struct.unpack_from("<Q", entries, at + 32)[0]
            return first
    raise BuildError("the disk has no partition of OpenBSD")


def _checksum(data: bytes) -> int:
    """Return 0 if a label is undamaged."""
    result = 0
    for (word,) in struct.iter_unpack("<H", data):
        result ^= word
    return result


def _letter(number: int) -> str:
    return string.ascii_letters[number]


def _mounted_on(read: Read, start: int) -> str:
    """Return where a file system was last mounted."""
    for offset, magic in SUPERBLOCKS:
        data = read(start * SECTOR + offset, SUPERBLOCK_SIZE)
        if struct.unpack_from("<I", data, 1372)[0] == magic:
            name = data[MOUNTED_ON : MOUNTED_ON + LONGEST_MOUNT].partition(b"\0")[0]
            return name.decode("ascii", "replace")
    return ""
