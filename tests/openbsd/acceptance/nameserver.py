"""A name server whose behaviour is chosen: python3 nameserver.py ADDRESS MANNER.

MANNER is `answers` (every name has the service's address), `refuses` or `silent`.
It prints a line when it is ready, and one for each question.
"""

from __future__ import annotations

import socket
import struct
import sys

PORT = 53
REFUSED = 5
ADDRESS = "169.254.42.42"
KINDS = {1: "A", 28: "AAAA"}


def main(address: str, manner: str) -> None:
    """Serve until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, PORT))
        print(f"ready: {manner}", flush=True)
        while True:
            question, client = server.recvfrom(4096)
            name, kind, end = parse(question)
            print(f"question {name} {KINDS.get(kind, kind)}", flush=True)
            if manner != "silent":
                server.sendto(reply(question, kind, end, manner), client)


def parse(question: bytes) -> tuple[str, int, int]:
    """Return the name and the type in a question, and where the question ends."""
    labels, at = [], 12
    while question[at]:
        length = question[at]
        labels.append(question[at + 1 : at + 1 + length].decode(errors="replace"))
        at += 1 + length
    (kind,) = struct.unpack("!H", question[at + 1 : at + 3])
    return ".".join(labels), kind, at + 5


def reply(question: bytes, kind: int, end: int, manner: str) -> bytes:
    """Return the reply: the question again and, for `answers`, an address."""
    code = REFUSED if manner == "refuses" else 0
    record = b""
    if KINDS.get(kind) == "A" and not code:
        # A pointer to the name in the question; class IN, for a minute.
        record = struct.pack("!HHHIH", 0xC00C, kind, 1, 60, 4)
        record += socket.inet_aton(ADDRESS)
    head = struct.pack("!HHHHH", 0x8180 | code, 1, bool(record), 0, 0)
    return question[:2] + head + question[12:end] + record


if __name__ == "__main__":
    main(*sys.argv[1:])
