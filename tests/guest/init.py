# ruff: noqa: PTH123, PTH208, S108, SIM115 - nobody else is in the guest
"""The guest's only program: network, disk, agent, a login prompt, the power button.

A word in sector 40 of the disk tells it how to behave. It stands in for an OpenBSD
with the site set. The first boot makes a disklabel UID, a /home on the rest of the
disk and a host key; every boot runs the agent.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import time

import disk  # type: ignore[import-not-found] # beside this file, in the guest

DISK = "/dev/vda"
MODE = 40 * disk.SECTOR
KEY = (disk.START + 1000) * disk.SECTOR  # the host key, in what would be /
LONGEST_KEY = 4096
AGENT = ["/bin/python3", "-S", "/guest/agent.py", "-d", "--set-hostname", "--no-dns"]
KEY_POWER, EV_KEY = 116, 1


def run(*words: str) -> None:
    subprocess.run(words, check=False)


def busybox(*words: str) -> None:
    run("/bin/busybox", *words)


def read(offset: int, size: int) -> bytes:
    with open(DISK, "rb") as file:
        file.seek(offset)
        return file.read(size)


def write(offset: int, data: bytes) -> None:
    with open(DISK, "r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def first_boot(mode: str) -> None:
    """Make what is unique to every server, and /home, unless they exist."""
    sectors = int(open("/sys/block/vda/size").read())
    now = read((disk.START + 1) * disk.SECTOR, disk.SECTOR)
    home_there = any(now[148 + 16 * 10 : 148 + 16 * 11])
    if home_there and mode != "changes":
        return
    end = sectors - disk.LAST_SECTORS - 1
    uid = now[64:72] if mode == "twin" else os.urandom(8)
    rest = end - disk.HOME - (disk.SECTOR * 4096 if mode == "small-home" else 0)
    parts = {
        "a": (disk.START, disk.ROOT_SECTORS, disk.FFS),
        "k": (disk.HOME, rest, disk.FFS),
    }
    if mode == "no-home":
        del parts["k"]
    write(0, disk.gpt(sectors, end))
    write(MODE, mode.encode().ljust(disk.SECTOR, b"\0"))
    write((disk.START + 1) * disk.SECTOR, disk.label(uid, sectors, end, parts))
    write(disk.HOME * disk.SECTOR + 65536, disk.superblock("/home"))


def sshd() -> None:
    """Serve the host key, which the first boot makes."""
    kept = read(KEY, LONGEST_KEY)
    size = struct.unpack_from("<I", kept)[0]
    if size:
        with open("/tmp/key", "wb") as file:
            file.write(kept[4 : 4 + size])
    else:
        run("/bin/dropbearkey", "-t", "ed25519", "-f", "/tmp/key")
        made = open("/tmp/key", "rb").read()
        write(KEY, (struct.pack("<I", len(made)) + made).ljust(LONGEST_KEY, b"\0"))
    subprocess.Popen(["/bin/dropbear", "-F", "-E", "-r", "/tmp/key", "-P", "/tmp/pid"])


def watch_power_button() -> None:
    for name in os.listdir("/dev/input"):
        if name.startswith("event"):
            threading.Thread(target=_watch, args=(f"/dev/input/{name}",)).start()


def _watch(path: str) -> None:
    with open(path, "rb", buffering=0) as events:
        while event := events.read(24):
            kind, code, value = struct.unpack("<16xHHi", event)
            if (kind, code, value) == (EV_KEY, KEY_POWER, 1):
                os.sync()
                busybox("poweroff", "-f")


def login() -> None:
    """Act as getty(8): print the host name, and again after each Control-D."""
    banner = "\r\n{}/{} ({}) (ttyS0)\r\n\r\nlogin: "
    while True:
        names = os.uname()
        text = banner.format(names.sysname, names.machine, socket.gethostname())
        os.write(1, text.encode())
        while os.read(0, 1) != b"\x04":
            pass


def main() -> None:
    mode = read(MODE, disk.SECTOR).rstrip(b"\0").decode() or "good"
    print(f"guest: {mode}", flush=True)
    if mode == "panic":
        with open("/proc/sysrq-trigger", "w") as trigger:
            trigger.write("c")
    if mode == "reboots":
        busybox("reboot", "-f")
    busybox("stty", "-F", "/dev/ttyS0", "-icanon", "-echo")
    busybox("ifconfig", "lo", "127.0.0.1", "up")
    busybox("ifconfig", "eth0", "up")
    busybox("udhcpc", "-i", "eth0", "-s", "/guest/dhcp", "-n", "-q", "-f")
    watch_power_button()
    first_boot(mode)
    sshd()
    if mode == "late":
        time.sleep(30)
    if mode != "never":
        words = [word for word in AGENT if mode != "no-name" or "hostname" not in word]
        run(*words)
    login()


if __name__ == "__main__":
    main()
