"""An emulated Scaleway metadata service, to try clients and to show them at work.

    python3 -m scw_signal.emulator --port 8042 --fault state/503:2

It shares no code with the client, so that it is an independent check. What it
imitates, and the source of each:

    PATCH /state, its reply and its headers   a packet capture of 2018
    GET /conf and its JSON form               the vendor's clients, documentation
    how text is quoted in them                the same; a quote in a value: likely
    a state has at most 128 characters        likely
    its replies to wrong requests             HTTP; the service's words: unknown
    `booted` makes a starting server run      seen until 2018; in 2025-26 servers
                                              run without it, and only the
                                              state_detail waits for the signal
    the watchdog that reboots a server        seen until 2018, on some ranges;
    without a signal                          whether it still exists: unknown
    the faults                                429, 503, 404, HTML, a closed port
                                              and silence were seen in the field,
                                              the others could happen

    /user_data, /vendor_data/cloud-init, and  the vendor's clients. Unknown: the
    their source port below 1024              words for a higher port (those of 400
                                              were reported by a user), the status
                                              of a write, and the largest value
"""

from __future__ import annotations

from scw_signal.emulator.document import DOCUMENT, flatten
from scw_signal.emulator.faults import FAULTS, parse_fault
from scw_signal.emulator.history import Event, Request
from scw_signal.emulator.service import Emulator

__all__ = [
    "DOCUMENT",
    "FAULTS",
    "Emulator",
    "Event",
    "Request",
    "flatten",
    "parse_fault",
]
