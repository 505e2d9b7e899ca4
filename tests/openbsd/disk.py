#!/usr/bin/env python3
"""Stand-ins for OpenBSD's programs that work on a disk; the name tells which.

They keep what is on the disk in a file, $DISK, and refuse what the real programs
refuse, as read in their sources. The power goes at step $POWER_GOES: each program
that changes something counts one before it does, and one in the middle where a half
counts; the one that gets there kills its process group. What was written to a file
since the last sync(8) is lost then; see `lose_power` in the tests. One boot runs scores
of these: hence no import that takes time.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Disk = dict[str, Any]

NAME = sys.argv[0].rpartition("/")[2]
ARGUMENTS = sys.argv[1:]
STATE = os.environ["DISK"]
STEPS = f"{STATE}.steps"
SYNCED = f"{STATE}.synced"
WATCHED = ("/etc", "/var/db")  # where what is not synced is lost
BLOCK = 32  # sectors: what partitions with file systems are aligned to
FIRST, SPARE = 64, 34  # the first sector of a GPT partition; what a GPT takes


def main() -> None:
    with open(STATE, "rb") as file:
        disk = marshal.load(file)  # noqa: S302 - our own
    globals()[NAME](disk)


def step() -> None:
    """Count a step; the power goes at one of them."""
    with open(STEPS, "ab") as file:
        file.write(b".")
        done = file.tell()
    if done == int(os.environ.get("POWER_GOES", "0")):
        os.killpg(0, 9)


def store(disk: Disk) -> None:
    with open(f"{STATE}.new", "wb") as file:
        marshal.dump(disk, file)
    os.replace(f"{STATE}.new", STATE)


def fail(why: str) -> NoReturn:
    sys.exit(f"{NAME}: {why}")


# What every system has: the real program.


def real(_: Disk) -> None:
    step()
    os.execv(f"/bin/{NAME}", [NAME, *ARGUMENTS])  # noqa: S606


cp = mv = rm = mkdir = real


def sync(_: Disk) -> None:
    """Note what the files have: that much stays if the power goes."""
    step()
    there = {}
    for top in WATCHED:
        for path, _directories, names in os.walk(top):
            for name in names:
                with open(f"{path}/{name}", "rb") as file:
                    there[os.fstat(file.fileno()).st_ino] = file.read()
    with open(SYNCED, "wb") as file:
        marshal.dump(there, file)


# The GPT.


def fdisk(disk: Disk) -> None:
    words = ARGUMENTS[:-1]
    if ARGUMENTS[-1:] != ["sd0"]:
        fail("no such disk")
    if not words:
        show_gpt(disk)
    elif words == ["-e"]:
        for line in sys.stdin.read().splitlines():
            if line == "write":
                step()
                disk["backup"] = disk["sectors"]  # it goes to the end of the disk
                store(disk)
    elif words[:1] == ["-gy"] and words[1:2] in ([], ["-b"]):
        new_gpt(disk, int(words[2]) if words[1:] else 0)
    else:
        fail(f"not a use that the stand-in knows: {words}")


def show_gpt(disk: Disk) -> None:
    print(f"Disk: sd0       Usable LBA: 34 to 1 [{disk['sectors']} Sectors]")
    print("   #: type                                 [       start:         size ]")
    print("-" * 72)
    for number, (kind, start, size) in enumerate(disk["gpt"]):
        print(f" {number:3}: {kind:<36} [{start:12}: {size:12}]")


def new_gpt(disk: Disk, efi: int) -> None:
    step()
    # While it is written, the first GPT is torn; only a backup at the end helps.
    good = disk["gpt"]
    disk["gpt"] = good if disk["backup"] == disk["sectors"] else "torn"
    store(disk)
    step()
    start = FIRST
    disk["gpt"] = []
    if efi:
        disk["gpt"].append(["EFI Sys", start, efi])
        start += efi + -efi % FIRST
    disk["gpt"].append(["OpenBSD", start, disk["sectors"] - SPARE - start])
    disk["backup"] = disk["sectors"]
    if disk["gpt"][-1][1] != good[-1][1]:
        disk["label"] = None  # the label is in the OpenBSD partition
    store(disk)


# The label.


def area(disk: Disk) -> list[int]:
    _, start, size = next(part for part in disk["gpt"] if part[0] == "OpenBSD")
    return [start, start + size]


def disklabel(disk: Disk) -> None:
    if ARGUMENTS[-1:] != ["sd0"] or disk["label"] is None:
        fail("no label")
    words = ARGUMENTS[:-1]
    if words == ["-E"]:
        edit(disk)
        return
    if words not in ([], ["-d"]):
        fail(f"not a use that the stand-in knows: {words}")
    start, end = area(disk)
    print("# /dev/rsd0c:\ntype: SCSI\nlabel: Block Device")
    print(f"duid: {disk['label']['duid'] if not words else '0' * 16}\nflags:")
    print(f"bytes/sector: 512\ntotal sectors: {disk['sectors']}")
    print(f"boundstart: {start}\nboundend: {end}\n\n16 partitions:")
    print("#                size           offset  fstype [fsize bsize   cpg]")
    partitions = {} if words else disk["label"]["partitions"]
    extra = {
        "c": [disk["sectors"], 0, "unused"],
        "i": [disk["gpt"][0][2], disk["gpt"][0][1], "MSDOS"],
    }
    for letter, (size, offset, kind) in sorted({**extra, **partitions}.items()):
        print(f"  {letter}: {size:16} {offset:16} {kind:>7}")


def edit(disk: Disk) -> None:
    """Follow the commands of -E; what is refused leaves the label as it is."""
    lines = iter(sys.stdin.read().splitlines())
    bounds = area(disk)
    partitions = dict(disk["label"]["partitions"])
    duid = disk["label"]["duid"]
    for line in lines:
        command, _, letter = line.partition(" ")
        if command == "b":
            start, size = next(lines), next(lines)
            length = disk["sectors"] - int(start) if size == "*" else int(size)
            if int(start) + length <= disk["sectors"]:
                bounds = [int(start), int(start) + length]
        elif command == "a":
            answers = [next(lines), next(lines), next(lines)]
            added = add(partitions, bounds, answers)
            if letter in partitions or letter in "ci" or added is None:
                print("not enough space")
            else:
                partitions[letter] = added
        elif command == "i":
            duid = next(lines)
        elif command == "w":
            step()
            if disk.get("label_is_stuck"):
                print("unable to write label")
                continue
            new = duid if int(duid, 16) else os.urandom(8).hex()
            disk["label"] = {"duid": new, "partitions": partitions}
            store(disk)
        elif command == "q":
            return
        else:
            print(f"Unknown option: {command}")


def add(partitions: Disk, bounds: list[int], answers: list[str]) -> list[Any] | None:
    """Return a partition in the largest free chunk, as far as it was answered."""
    chunks, at = [], bounds[0]
    for size, offset, _ in sorted(partitions.values(), key=lambda part: part[1]):
        chunks.append((offset - at, at))
        at = max(at, offset + size)
    chunks.append((bounds[1] - at, at))
    size, offset = max(chunks)
    if answers[0] or answers[1]:
        fail("the stand-in takes the defaults only")
    start = offset + -offset % BLOCK
    end = (offset + size) // BLOCK * BLOCK
    return [end - start, start, answers[2]] if end > start else None


# File systems.


def newfs(disk: Disk) -> None:
    special = ARGUMENTS[-1].removeprefix("/dev/r")
    letter = special.removeprefix("sd0")
    if not ARGUMENTS[-1].startswith("/dev/r") or letter == special:
        fail(f"{ARGUMENTS[-1]}: not a character-special device")
    if disk["label"]["partitions"].get(letter, [0, 0, ""])[2] != "4.2BSD":
        fail(f"{special}: partition type is not 4.2BSD")
    if f"/dev/{special}" in disk["mounted"]:
        fail(f"{special}: file system is mounted")
    if disk.get("newfs_fails"):
        fail("write error: Input/output error")
    step()
    disk["file_systems"][letter] = "half"
    store(disk)
    step()
    disk["file_systems"][letter] = "empty"
    store(disk)


def mount(disk: Disk) -> None:
    if not ARGUMENTS:
        for device, where in disk["mounted"].items():
            print(f"{device} on {where} type ffs (local)")
        return
    device, where = ARGUMENTS[-2:]
    letter = device.removeprefix("/dev/sd0")
    if disk["file_systems"].get(letter) in (None, "half"):
        fail(f"{device} on {where}: Invalid argument")
    if device in disk["mounted"] or not os.path.isdir(where):
        fail(f"{device} on {where}: Device busy")
    step()
    disk["mounted"][device] = where
    store(disk)


main()
