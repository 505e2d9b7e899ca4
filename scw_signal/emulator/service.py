"""The service: its sockets, its threads, and its memory.

Strategy: one thread, the watcher, owns the listening socket and does what happens
without a request (the watchdog, the closed port). Each connection has a thread too.
They share the state under one lock, and `close` ends every wait in them.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, BinaryIO, final

from scw_signal.emulator.document import DOCUMENT, printable, quoted
from scw_signal.emulator.faults import FAULTS, NO_FAULT, Delivery, Fault, parse_fault
from scw_signal.emulator.history import Event, Request
from scw_signal.emulator.platform import Platform
from scw_signal.emulator.protocol import TurnedAwayError, read_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scw_signal.emulator.protocol import Incoming, Reply

BACKLOG = 128  # connections that wait to be accepted
HISTORY = 10_000  # requests, and events, to remember
WATCH_SECONDS = 0.02  # seconds between two looks of the watcher
IDLE = 75.0  # seconds until an idle connection is closed, as in nginx
GRACE = 1.0  # seconds for a client to read why it is turned away


@final
class Emulator:
    """A metadata service that serves from its construction until `close`.

    `document` replaces the built-in one; the emulator updates its `state_detail`, and
    `state` if it has one. `faults` are written as for the command. A server that does
    not signal `booted` within `watchdog` seconds of each boot is hard-rebooted; None
    means never.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        document: Mapping[str, object] | None = None,
        faults: Sequence[str] = (),
        watchdog: float | None = None,
        user_data: Mapping[str, bytes] | Sequence[tuple[str, bytes]] = (),
        vendor_data: bytes | None = None,
        any_port: bool = False,
        high_port_status: int = 403,
        write_status: int = 204,
    ) -> None:
        """Serve; raises OSError if it cannot listen, ValueError for a bad argument.

        With `any_port`, requests for user and vendor data may come from any port;
        without it, one from a port above 1023 gets `high_port_status`, 403 or 400.
        `write_status`, 204 or 200, answers a change of user data.
        """
        self._platform = Platform(
            DOCUMENT if document is None else document,
            user_data=user_data,
            vendor_data=vendor_data,
            any_port=any_port,
            high_port_status=high_port_status,
            write_status=write_status,
            watchdog=watchdog,
        )
        self._faults = [parse_fault(spec) for spec in faults]
        self._host = host
        self._listener: socket.socket | None = _listen(host, port)
        self._port: int = self._listener.getsockname()[1]
        self._start = time.monotonic()
        self._closing = threading.Event()
        # Guards the attributes below, the platform and the faults.
        self._lock = threading.Condition()
        self._reopening = math.inf  # seconds since the start; inf: never
        self._requests: deque[Request] = deque(maxlen=HISTORY)
        self._events: deque[Event] = deque(maxlen=HISTORY)
        self._follower: Callable[[Event], None] | None = None
        self._workers: list[tuple[threading.Thread, socket.socket]] = []
        self._watcher = threading.Thread(target=self._watch_port, daemon=True)
        self._watcher.start()
        with self._lock:
            self._await_port()

    def __enter__(self) -> Emulator:
        """Return the emulator itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close every socket and end every thread, even in a wait."""
        self._closing.set()
        with self._lock:
            self._lock.notify_all()
        self._watcher.join()  # after it there are no new workers
        for _, connection in self._workers:
            _shutdown(connection, socket.SHUT_RDWR)
        for worker, _ in self._workers:
            worker.join()

    @property
    def url(self) -> str:
        """The address of the service, with no slash at the end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def requests(self) -> list[Request]:
        """The complete requests so far; each is added before its reply is sent."""
        with self._lock:
            return list(self._requests)

    @property
    def events(self) -> list[Event]:
        """The events so far."""
        with self._lock:
            return list(self._events)

    @property
    def server_state(self) -> str:
        """`starting`, `running`, or for a quarter of a second `hard-rebooted`."""
        with self._lock:
            return self._platform.server_state

    @property
    def state_detail(self) -> str:
        """The last signalled state, or `booting kernel`."""
        with self._lock:
            return self._platform.state_detail

    @property
    def user_data(self) -> dict[str, bytes]:
        """The user data as it is now."""
        with self._lock:
            return dict(self._platform.user_data)

    def set_faults(self, faults: Sequence[str]) -> None:
        """Replace the remaining faults.

        On return the port is open or closed as they want it. Raises ValueError, and
        then nothing has changed.
        """
        parsed = [parse_fault(spec) for spec in faults]
        with self._lock:
            self._faults = parsed
            self._reopening = math.inf
            self._await_port()

    def set_document(self, document: Mapping[str, object]) -> None:
        """Replace the metadata, as a change in the console does."""
        with self._lock:
            self._platform.set_document(document)

    def follow(self, follower: Callable[[Event], None]) -> None:
        """Call `follower` with each event, and now with those so far.

        It is called in the thread of the event, never twice at the same time.
        """
        with self._lock:
            self._follower = follower
            for event in self._events:
                follower(event)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait at most `seconds` until `condition` holds; tell whether it does.

        It is checked at every event, while the emulator holds its lock.
        """
        with self._lock:
            return self._lock.wait_for(condition, seconds)

    # The watcher

    def _watch_port(self) -> None:
        while not self._closing.is_set():
            with self._lock:
                self._run_refusals()
                self._add_change(self._platform.advance(self._now()))
                self._lock.notify_all()
            if self._listener:
                self._accept(self._listener)
            else:
                self._closing.wait(WATCH_SECONDS)
        if self._listener:
            self._listener.close()

    def _run_refusals(self) -> None:
        while self._refuses():
            if self._reopening == math.inf:
                self._reopening = self._now() + self._faults[0].left
                self._close_port()
            if self._now() < self._reopening:
                return
            del self._faults[0]
            self._reopening = math.inf
        if self._listener is None:
            try:
                self._listener = _listen(self._host, self._port)
            except OSError:  # another process has the port: the watcher tries again
                return
            self._add_event("port open")

    def _refuses(self) -> bool:
        return bool(self._faults) and self._faults[0].name == "refuse"

    def _close_port(self) -> None:
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        # Connections that are kept alive would still be served. This ends the idle
        # ones; a reply that is being sent is still completed.
        for _, connection in self._workers:
            _shutdown(connection, socket.SHUT_RD)
        self._add_event("port closed fault=refuse")

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, address = listener.accept()
        except OSError:  # no client came, or it has left already
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(IDLE)
        client = (address[0], address[1])
        worker = threading.Thread(
            target=self._converse, args=(connection, client), daemon=True
        )
        with self._lock:
            self._workers = [pair for pair in self._workers if pair[0].is_alive()]
            self._workers.append((worker, connection))
            worker.start()

    # The workers

    def _converse(self, connection: socket.socket, client: tuple[str, int]) -> None:
        """Serve all requests of one connection."""
        with connection, connection.makefile("rb") as stream:
            try:
                while self._exchange(stream, connection, client):
                    pass
            except TurnedAwayError as error:
                self._turn_away(connection, client, error.reply)
            except (OSError, EOFError):
                pass  # the client has left, or has nothing more to ask

    def _exchange(
        self, stream: BinaryIO, connection: socket.socket, client: tuple[str, int]
    ) -> bool:
        """Serve one request; tell whether another one may follow."""
        incoming = read_request(stream, connection)
        with self._lock:
            fault = self._take_fault(incoming.path)
            kind = FAULTS[fault.name] if fault else NO_FAULT
            argument = fault.argument if fault else 0.0
            reply = self._platform.answer(incoming, client[1]) if kind.effect else None
            if kind.reply:
                note = reply.note if reply else ""
                reply = kind.reply(argument, self._platform.state_detail)._replace(
                    note=note
                )
            self._record(incoming, client, reply, fault)
            self._await_port()
            keep = incoming.keep and not kind.deliver and self._listener is not None
        bodiless = incoming.method == "HEAD"
        wire = reply.serialised(keep=keep, bodiless=bodiless) if reply else b""
        if kind.deliver:
            kind.deliver(Delivery(connection, wire, argument, self._closing))
        else:
            connection.sendall(wire)
        return keep

    def _turn_away(
        self, connection: socket.socket, client: tuple[str, int], reply: Reply
    ) -> None:
        with self._lock:
            self._add_event(f"? -> {reply.status} {reply.note}", client)
        try:
            connection.sendall(reply.serialised(keep=False, bodiless=False))
            # Closing with unread data sends a reset, which can overtake the reply.
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(GRACE)
            while connection.recv(65536):
                pass
        except OSError:
            pass

    # With the lock held

    def _take_fault(self, path: str) -> Fault | None:
        for at, fault in enumerate(self._faults):
            if fault.name == "refuse":  # later faults come after it
                return None
            if fault.path is None or f"{path}/".startswith(f"{fault.path}/"):
                rest = fault._replace(left=fault.left - 1)
                self._faults[at : at + 1] = [rest] if rest.left else []
                return fault
        return None

    def _record(
        self,
        incoming: Incoming,
        client: tuple[str, int],
        reply: Reply | None,
        fault: Fault | None,
    ) -> None:
        status = reply.status if reply else None
        name = fault.name if fault else None
        self._requests.append(Request(*incoming[:4], self._now(), client, status, name))
        words = [printable(incoming.method, 20), printable(incoming.target), "->"]
        words += [str(status or "-"), reply.note if reply else ""]
        wait = dict(reply.headers).get("Retry-After") if reply else None
        words += [f"retry_after={quoted(wait)}" if wait else ""]
        words += [f"fault={name}" if name else ""]
        self._add_event(" ".join(filter(None, words)), client)
        self._add_change(self._platform.run_if_booted())

    def _add_change(self, change: str | None) -> None:
        if change:
            self._add_event(change)

    def _add_event(self, text: str, client: tuple[str, int] | None = None) -> None:
        event = Event(self._now(), text, time.time(), client)
        self._events.append(event)
        self._lock.notify_all()
        if self._follower:
            self._follower(event)

    def _await_port(self) -> None:
        """Wait until the port is as the faults want it.

        Not forever: another process may have taken the port in the meantime.
        """
        self._lock.wait_for(
            lambda: (
                self._refuses() == (self._listener is None) or self._closing.is_set()
            ),
            timeout=GRACE,
        )

    def _now(self) -> float:
        return time.monotonic() - self._start


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    listener.settimeout(WATCH_SECONDS)
    return listener


def _shutdown(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:  # its thread has closed it
        pass
