"""Connects the guest to the emulator: relay.py PORT.

QEMU starts this for each connection to 169.254.42.42, which is its standard input and
output. It is a separate program with few imports, since it starts so often.
"""

import os
import select
import socket
import sys

CHUNK_BYTES = 65536


def main(port: int) -> None:
    """Pass bytes in both directions until both sides have ended."""
    guest = socket.socket(fileno=0)
    with socket.create_connection(("127.0.0.1", port)) as service:
        others = {guest: service, service: guest}
        while others:
            for ready in select.select(list(others), [], [])[0]:
                data = ready.recv(CHUNK_BYTES)
                if data:
                    others[ready].sendall(data)
                else:
                    others.pop(ready).shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except OSError:  # one side has closed: close the other
        os._exit(1)
