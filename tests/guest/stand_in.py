"""Stands in for QEMU and the server in it: console, network, disk, in milliseconds.

To talk to the service, it starts the command that QEMU would start for a connection
to the service's address. It also writes to the disk that it was given. FAULT in the
environment says what goes wrong. Shares no code with packaging/image.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from guest import disk

FAULT = os.environ.get("FAULT", "")
LINE = " ".join(sys.argv)
OVERLAY = re.findall(r"file=(\S+\.qcow2)", LINE)[0]
PORT = int(re.findall(r"hostfwd=tcp:127\.0\.0\.1:(\d+)-:22", LINE)[0])
RELAY = next(word for word in sys.argv if "guestfwd" in word)
CONTROL = socket.socket(fileno=int(re.findall(r"socket,id=control,fd=(\d+)", LINE)[0]))
BOOTED = Path(OVERLAY).with_suffix(".booted")


def say(text: str) -> None:
    os.write(1, text.replace("\n", "\r\n").encode())


def ask(request: str) -> bytes:
    """Send a request to the service, as the guest's kernel and QEMU would."""
    command = RELAY.partition("-cmd:")[2].partition(",hostfwd")[0].replace(",,", ",")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            shlex.split(command), stdin=theirs.fileno(), stdout=theirs.fileno()
        )
        theirs.close()
        ours.sendall(request.encode())
        reply = b""
        while data := ours.recv(65536):
            reply += data
    process.wait()
    return reply


def write(offset: int, data: bytes) -> None:
    padded = data.ljust(-(-len(data) // disk.SECTOR) * disk.SECTOR, b"\0")
    with tempfile.NamedTemporaryFile() as file:
        file.write(padded)
        file.flush()
        words = f"write -s {file.name} {offset} {len(padded)}"
        subprocess.run(
            ["qemu-io", "-c", words, OVERLAY], stdout=subprocess.DEVNULL, check=True
        )


def partition() -> None:
    """Do what the first boot does to the disk."""
    info = ["qemu-img", "info", "--output=json", OVERLAY]
    size = json.loads(subprocess.check_output(info))["virtual-size"]
    sectors = size // disk.SECTOR
    end = sectors - disk.LAST_SECTORS - 1
    rest = end - disk.HOME - (1 << 20 if FAULT == "small-home" else 0)
    parts = {
        "a": (disk.START, disk.ROOT_SECTORS, disk.FFS),
        "b": (disk.START + 100, 64, disk.SWAP),
        "k": (disk.HOME, rest, disk.FFS),
    }
    uid = b"\7" * 8 if FAULT == "same-uid" else os.urandom(8)
    label = disk.label(uid, sectors, end, parts)
    if FAULT == "torn-label":
        label = label[:150] + b"\xff" + label[151:]
    write(0, disk.gpt(sectors, end) if FAULT != "no-gpt" else bytes(1024))
    write((disk.START + 1) * disk.SECTOR, label)
    place = "/var" if FAULT == "no-home" else "/home"
    write(disk.HOME * disk.SECTOR + 65536, disk.superblock(place))


def host_key() -> str:
    kept = BOOTED.read_text() if BOOTED.exists() else ""
    if FAULT == "same-key":
        return "the same on all"
    if FAULT == "new-key" and kept:
        return f"{kept}-another"
    return kept or os.urandom(8).hex()


def end(reason: str) -> None:
    event = {"event": "SHUTDOWN", "data": {"guest": True, "reason": reason}}
    CONTROL.sendall(json.dumps(event).encode() + b"\n")
    sys.exit()


def hang() -> None:
    while os.read(0, 1024):
        pass
    sys.exit()


def serve(name: str, key: str) -> None:
    """Act as the login prompt, sshd(8) and the power button."""
    banner = "\nOpenBSD/amd64 ({}) (tty00)\n\nlogin: "
    first = "old" if FAULT in {"late-name", "wrong-name"} else name
    say(banner.format(first))
    with socket.create_server(("127.0.0.1", PORT)) as sshd:
        ends: list[int | socket.socket] = [0, CONTROL]
        ends += [] if FAULT == "no-sshd" else [sshd]
        while True:
            for ready in select.select(ends, [], [])[0]:
                if ready is sshd:
                    connection, _ = sshd.accept()
                    with connection:
                        connection.sendall(key.encode())
                elif ready is CONTROL:
                    said = CONTROL.recv(4096)
                    if not said:
                        sys.exit()
                    if b"system_powerdown" in said and FAULT != "stays-on":
                        say("syncing disks... done\n")
                        end("guest-shutdown")
                elif ready == 0:
                    if not (typed := os.read(0, 16)):
                        sys.exit()
                    if b"\x04" in typed:
                        say(banner.format(first if FAULT == "wrong-name" else name))


def main() -> None:
    print("a harmless remark of QEMU", file=sys.stderr, flush=True)
    say("\x1b[2J\x1b[01;01HBdsDxe: starting Boot0001\n")
    if FAULT == "no-loader":
        say("UEFI Interactive Shell v2.2\nShell> ")
        hang()
    say("booting hd0a:/bsd: 4103-\nOpenBSD 8.0 (GENERIC.MP) #1\n")
    if FAULT == "panic":
        say("panic: uvm_fault(0xffffffff82a3, 0x0, 0, 1) -> e\nddb{0}> ")
        hang()
    if FAULT == "kvm":
        print("KVM internal error. Suberror: 1", file=sys.stderr, flush=True)
        CONTROL.sendall(b'{"event": "RESUME"}\n{"event": "STOP"}\n')
        hang()
    if FAULT == "single-user":
        say("Enter pathname of shell or RETURN for sh: ")
        hang()
    if FAULT == "dead":
        sys.exit(1)
    if FAULT in {"guest-reset", "guest-shutdown"}:
        end(FAULT)
    say("starting network\nreordering: ld.so libc libcrypto sshd.\n")
    if FAULT == "never":
        hang()
    key = host_key()
    if not BOOTED.exists() or FAULT == "changes":
        partition()
        BOOTED.write_text(key)
    found = ask("GET /conf?format=json HTTP/1.0\r\n\r\n")
    name = json.loads(found.partition(b"\r\n\r\n")[2])["hostname"]
    body = '{"state_detail": "booted"}'
    head = "PATCH /state HTTP/1.0\r\nContent-Type: application/json\r\n"
    reply = ask(f"{head}Content-Length: {len(body)}\r\n\r\n{body}")
    assert b" 200 " in reply.partition(b"\r\n")[0], reply
    serve(name, key)


if __name__ == "__main__":
    main()
