"""The bytes that OpenBSD writes to a disk, as far as they can be seen from outside.

A GPT with an EFI partition at sector 64 and OpenBSD's behind it, a disklabel in the
second sector of OpenBSD's, and the superblock of a file system. The layouts are those
of OpenBSD's <sys/gpt.h>, <sys/disklabel.h> and <ufs/ffs/fs.h>. Shares no code with
packaging/image, and imports only what the guest has.
"""

from __future__ import annotations

import struct
import uuid
import zlib

SECTOR = 512
EFI_START = 64
EFI_SECTORS = 160 * 1024 * 1024 // SECTOR
START = EFI_START + EFI_SECTORS  # of OpenBSD's partition
ROOT_SECTORS = 8192
HOME = START + ROOT_SECTORS
LAST_SECTORS = 33  # the backup of the GPT

EFI_TYPE = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
OPENBSD_TYPE = uuid.UUID("824cc7a0-36a8-11e3-890a-952519ad3f61")
FFS = 7
SWAP = 1


def gpt(sectors: int, end: int) -> bytes:
    """Return sectors 0 to 33 of a disk whose OpenBSD partition ends before `end`."""
    kinds = [(EFI_TYPE, EFI_START, START - 1), (OPENBSD_TYPE, START, end - 1)]
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", kind.bytes_le, uuid.uuid4().bytes_le, a, b, 0, b"")
        for kind, a, b in kinds
    ).ljust(128 * 128, b"\0")
    header = bytearray(
        struct.pack(
            "<8sIIIIQQQQ16sQIII",
            *(b"EFI PART", 0x10000, 92, 0, 0, 1, sectors - 1, 34),
            *(sectors - LAST_SECTORS - 1, uuid.uuid4().bytes_le, 2, 128, 128),
            zlib.crc32(entries),
        )
    )
    header[16:20] = struct.pack("<I", zlib.crc32(header))
    mbr = bytearray(SECTOR)
    mbr[446:462] = struct.pack("<8sII", b"\0\0\2\0\xee\xff\xff\xff", 1, sectors - 1)
    mbr[510:] = b"\x55\xaa"
    return bytes(mbr) + bytes(header).ljust(SECTOR, b"\0") + entries


def label(
    uid: bytes, sectors: int, end: int, parts: dict[str, tuple[int, int, int]]
) -> bytes:
    """Return a disklabel; a part is its start, its number of sectors and its type."""
    data = bytearray(148 + 16 * 16)
    struct.pack_into("<IHH16s", data, 0, 0x82564557, 4, 0, b"virtio")
    struct.pack_into("<6I", data, 40, 512, 63, 255, 1, 16065, sectors & 0xFFFFFFFF)
    data[64:72] = uid
    struct.pack_into("<HHII", data, 76, 0, end >> 32, START, end & 0xFFFFFFFF)
    struct.pack_into("<HH", data, 112, sectors >> 32, 1)
    struct.pack_into("<IHH", data, 132, 0x82564557, 0, 16)
    for letter, (start, size, kind) in {**parts, "c": (0, sectors, 0)}.items():
        struct.pack_into(
            *("<IIHHBBH", data, 148 + 16 * (ord(letter) - ord("a"))),
            *(size & 0xFFFFFFFF, start & 0xFFFFFFFF, start >> 32, size >> 32),
            *(kind, 0x25 if kind == FFS else 0, 1 if kind == FFS else 0),
        )
    checksum = 0
    for (word,) in struct.iter_unpack("<H", bytes(data)):
        checksum ^= word
    struct.pack_into("<H", data, 136, checksum)
    return bytes(data).ljust(SECTOR, b"\0")


def superblock(mounted_on: str) -> bytes:
    """Return a superblock of FFS2; fields that nothing reads are left empty."""
    data = bytearray(1376)
    data[212 : 212 + len(mounted_on)] = mounted_on.encode()
    struct.pack_into("<I", data, 1372, 0x19540119)
    return bytes(data)
