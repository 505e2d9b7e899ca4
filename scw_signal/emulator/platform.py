"""The platform: what it knows about one server, and what it answers.

This module opens no socket, reads no clock and starts no thread. Times are arguments,
in seconds since the emulator started.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, final

from scw_signal.emulator.document import BOOTING
from scw_signal.emulator.protocol import (
    ENDPOINTS,
    Reply,
    acknowledgement,
    formatted,
    index,
    said,
    signalled_state,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scw_signal.emulator.protocol import Incoming

FIRST_FREE_PORT = 1024  # only root can use those below
# The status of a write, and the status and words for a request from a higher port.
# Clients exist for each of them; which one the service sends today is unknown.
WRITE_STATUSES = (204, 200)
HIGH_PORT_WORDS = {403: "ask from a source port below 1024", 400: "invalid argument(s)"}
REBOOT = 0.25  # seconds until a hard-rebooted server is starting again


@final
class Platform:
    """One server as the platform sees it: state, metadata and user data."""

    def __init__(
        self,
        document: Mapping[str, object],
        *,
        user_data: Mapping[str, bytes] | Sequence[tuple[str, bytes]],
        vendor_data: bytes | None,
        any_port: bool,
        high_port_status: int,
        write_status: int,
        watchdog: float | None,
    ) -> None:
        """Begin with a starting server; raises ValueError for a bad status."""
        if high_port_status not in HIGH_PORT_WORDS:
            raise ValueError(f"high_port_status is 403 or 400, not {high_port_status}")
        if write_status not in WRITE_STATUSES:
            raise ValueError(f"write_status is 204 or 200, not {write_status}")
        self.server_state = "starting"
        self.state_detail = BOOTING
        self.user_data = dict(user_data)
        self._document = copy.deepcopy(dict(document))
        self._vendor_data = vendor_data
        self._any_port = any_port
        self._high_port_status = high_port_status
        self._write_status = write_status
        self._watchdog = math.inf if watchdog is None else watchdog
        self._deadline = self._watchdog  # inf never comes

    def set_document(self, document: Mapping[str, object]) -> None:
        """Replace the metadata."""
        self._document = copy.deepcopy(dict(document))

    def advance(self, now: float) -> str | None:
        """Let the watchdog act; return what changed, if anything did."""
        if now < self._deadline:
            return None
        if self.server_state == "starting":
            self._deadline = now + REBOOT
            return self._enter("hard-rebooted")
        self.state_detail = BOOTING
        self._deadline = now + self._watchdog
        return self._enter("starting")

    def run_if_booted(self) -> str | None:
        """Let a server run after its signal; return what changed, if anything did."""
        if self.state_detail != "booted" or self.server_state == "running":
            return None
        self._deadline = math.inf
        return self._enter("running")

    def answer(self, incoming: Incoming, port: int) -> Reply:
        """Do what a request from this source port asks for; return the reply."""
        methods, _ = ENDPOINTS.get(incoming.endpoint, ((), ""))
        if not methods:
            return said(404, "not found")
        if incoming.method not in methods:
            return said(405, "method not allowed", ("Allow", ", ".join(methods)))
        if incoming.path == "/":
            return Reply(200, index().encode())
        if incoming.path == "/state":
            return self._take_signal(incoming.body)
        if incoming.path == "/conf":
            return self._answer_metadata(incoming)
        return self._answer_data(incoming, port)

    def _enter(self, state: str) -> str:
        before, self.server_state = self.server_state, state
        return f"server {before} -> {state}"

    def _take_signal(self, body: bytes) -> Reply:
        try:
            self.state_detail = signalled_state(body)
        except ValueError as error:
            return said(400, str(error))
        return acknowledgement(self.state_detail)

    def _answer_metadata(self, incoming: Incoming) -> Reply:
        document = {**self._document, "state_detail": self.state_detail}
        if "state" in document:
            document["state"] = self.server_state
        return formatted(document, incoming)

    def _answer_data(self, incoming: Incoming, port: int) -> Reply:
        if port >= FIRST_FREE_PORT and not self._any_port:
            return said(self._high_port_status, HIGH_PORT_WORDS[self._high_port_status])
        if incoming.endpoint == "/user_data":
            return formatted({"user_data": list(self.user_data)}, incoming)
        key = incoming.key
        if incoming.method == "PATCH":
            return self._set_user_data(key, incoming)
        value = self.user_data.get(key) if key else self._vendor_data
        if value is None:
            return said(404, "there is no such key")
        if incoming.method == "DELETE":
            del self.user_data[key]
            return Reply(self._write_status, note=f"deleted={len(value)}")
        return Reply(200, value)

    def _set_user_data(self, key: str, incoming: Incoming) -> Reply:
        if "text/plain" not in values(incoming.headers, "content-type"):
            return said(400, "user data is text/plain")
        self.user_data[key] = incoming.body
        return Reply(self._write_status, note=f"bytes={len(incoming.body)}")
