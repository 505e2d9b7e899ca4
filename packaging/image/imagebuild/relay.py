"""Joins a connection of the guest to the emulator: relay.py PORT.

QEMU starts this for each connection to 169.254.42.42, with it as standard input and
output. A program of its own, which imports little, for it starts that often.
"""

import os
import select
import socket
import sys

READ = 65536


def main(port: int) -> None:
    """Pass bytes on, both ways, until both sides have ended."""
    guest = socket.socket(fileno=0)
    with socket.create_connection(("127.0.0.1", port)) as service:
        others = {guest: service, service: guest}
        while others:
            for ready in select.select(list(others), [], [])[0]:
                data = ready.recv(READ)
                if data:
                    others[ready].sendall(data)
                else:
                    others.pop(ready).shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except OSError:  # one side has left: so does the other
        os._exit(1)
