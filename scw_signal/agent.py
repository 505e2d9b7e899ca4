"""The use cases: send the boot signal, get the metadata.

Each function is one use case. It gets its tools (clock, network, service, store,
log) as arguments, so that the order of the work can be read here:

    boot    wait for a route, wait for DNS, prepare (host name, user data),
            signal until acknowledged, store the state and the metadata
    signal  send one state, retrying as Patience says
    fetch   get the metadata document, retrying as Patience says
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from . import backoff, document, flat, render, store, wire
from .errors import (
    BrokenOffError,
    GaveUpError,
    NonsenseError,
    NoSuchKeyError,
    OtherStateError,
    RefusedError,
    ScwSignalError,
    StoreError,
    TryAgainError,
)
from .script import not_a_script
from .terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock
    from .document import Node
    from .log import Log
    from .network import Network
    from .privileged import Parent
    from .store import Store
    from .transport import Service
    from .wire import Endpoint

PREPARE_SECONDS = 30.0  # to ask for what the preparation needs, before the signal ...
LATE_SECONDS = 600.0  # ... and after it, when nothing waits for the answers
USER_DATA_KEY = "cloud-init"  # where the console puts it
METADATA_SECONDS = 60.0  # to get the metadata after the signal
# The service denies the signal if its reply names no state and its document has a
# different one. Some day the service may change its reply and stop updating the
# document; without this bound, the agent would then signal forever.
MOST_DENIALS = 3
DENIAL_SECONDS = 120.0  # at least, from the first denial to the last

T = TypeVar("T")


class Receipt(NamedTuple):
    """A signal that was sent: the state, the address and the number of tries."""

    state: str
    confirmed: bool
    endpoint: Endpoint
    tries: int


class Metadata(NamedTuple):
    """The metadata document, as served and parsed."""

    body: bytes
    document: dict[str, Node]


class Patience:
    """How long to try, what to do in between, and whether a refusal ends it."""

    def __init__(
        self,
        clock: Clock,
        seconds: float,
        pause: Callable[[float, float], None],
        report: Callable[[ScwSignalError, int, float], None],
        *,
        insist: bool = False,
        unattended: bool = False,
        once: bool = False,
        limit: str = "",
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Start the time limit of `seconds` (inf for none).

        `pause` waits for a delay and its floor (see Network.pause). `report` is
        called for each failed try. `insist` retries after a refusal too, and makes
        the first delays longer, since no person waits. `unattended` treats an
        unexpected exception as a failed try, since no person could report it.
        `once` makes one try only. `limit` names the option that sets `seconds`.
        `chance` returns a random number from [0, 1).
        """
        self._clock = clock
        self._start = clock.monotonic()
        self._seconds = seconds
        self._pause = pause
        self._report = report
        self._insist = insist
        self._unattended = unattended
        self._once = once
        self._limit = limit and f" ({limit})"
        self._chance = chance

    def remaining(self) -> float:
        """Return the seconds left, inf if there is no limit."""
        return self._seconds - (self._clock.monotonic() - self._start)

    def run(self, operation: Callable[[], T]) -> tuple[T, int]:
        """Call `operation` until it succeeds; return its result and the tries.

        Raises GaveUpError when the time is up, RefusedError when a refusal ends
        the tries, and with `once` the error of the one try.
        """
        if self._unattended:
            operation = _translated(operation)
        began = self._clock.monotonic()
        try:
            return operation(), 1
        except (TryAgainError, RefusedError) as error:
            if self._once or (isinstance(error, RefusedError) and not self._insist):
                raise
            first = error
        # Imported here, because most commands succeed at the first try: they need
        # not wait until tenacity is loaded.
        from .retrying import persist  # noqa: PLC0415

        before: ScwSignalError = first

        def report(error: ScwSignalError, tries: int, delay: float) -> None:
            nonlocal before
            before = error
            self._report(error, tries, delay)

        try:
            return persist(
                operation,
                first,
                self._clock.monotonic() - began,
                insist=self._insist,
                now=self._clock.monotonic,
                remaining=self.remaining,
                pause=self._pause,
                report=report,
                chance=self._chance,
            )
        except (TryAgainError, RefusedError) as last:
            if isinstance(last, RefusedError) and not self._insist:
                raise
            # If the limit cut the last try short, its error does not tell the cause.
            told = before if self.remaining() <= 0 else last
            spent = f"{self._seconds - self.remaining():.1f}".removesuffix(".0")
            raise GaveUpError(f"{told}; gave up after {spent} s{self._limit}") from None


class Preparation(NamedTuple):
    """What root must do before the signal, and the process that does it."""

    root: Parent
    service: Service  # asks from a port below 1024
    hostname: bool
    user_data: bool

    def __bool__(self) -> bool:
        """Tell whether anything is left to do."""
        return self.hostname or self.user_data


class Parts(NamedTuple):
    """What the agent works with."""

    clock: Clock
    network: Network
    await_dns: Callable[[], bool] | None  # returns whether DNS answered; None skips it
    service: Service
    store: Store | None  # None where the run directory cannot be written
    log: Log
    patience: Callable[[str, float], Patience]  # by stage and seconds
    narrow: Callable[[str], None]  # drops the privileges that later stages do not need
    preparation: Preparation | None = None


def boot(parts: Parts, state: str, deadline: float = math.inf) -> Receipt:
    """Do all the work of a boot; return the receipt of the signal.

    `deadline` limits the signal stage, in seconds. Raises ScwSignalError when it
    has passed.
    """
    log, watch = parts.log, _Watch(parts.clock)
    _await_route(parts, watch)
    network_seconds = watch.lap()
    _await_dns(parts, watch)
    dns_seconds = watch.lap()
    left = _prepare(parts)
    watch.lap()
    if not left:
        parts.narrow("signal")

    patience = parts.patience("signal", deadline)
    settle = _Settlement(parts.service, state, parts.clock)
    receipt = signal(parts.service, state, patience, settle)
    signal_seconds = watch.lap()
    say, what = (
        (log.info, "acknowledged by")
        if receipt.confirmed
        else (log.warning, "sent, but unconfirmed, to")
    )
    say(
        f"signal: {state!r} {what} {receipt.endpoint.url}"
        f" after {signal_seconds:.1f} s, try {receipt.tries}"
    )
    stages = (network_seconds, dns_seconds, signal_seconds)
    _write_files(parts, _report(receipt, stages))

    metadata = _metadata(parts)
    if left:
        _catch_up(parts, left)
    # If the interpreter closed this socket, it would first call getsockname(2).
    # That needs a promise which the next line gives up. The socket to root is
    # closed explicitly for the same reason.
    parts.network.close()
    parts.narrow("leave")
    if not receipt.confirmed and metadata is not None:
        receipt = _read_back(receipt, metadata, log)
        _write_files(parts, _report(receipt, stages))
    if metadata is not None and _write_files(parts, metadata_files(metadata)):
        log.info(f"metadata: stored after {watch.lap():.1f} s")
    return receipt


def signal(
    service: Service,
    state: str,
    patience: Patience,
    settle: Callable[[float], bool] = lambda _budget: False,
) -> Receipt:
    """Signal `state` until it is acknowledged, retrying as `patience` says.

    If a reply names no state, `settle` gets a budget in seconds and tells whether
    the signal is confirmed, or raises the error of this try. Raises the error of the
    last try.
    """

    def once() -> tuple[bool, Endpoint]:
        request = wire.state_request(state)
        reply, endpoint = service.exchange(request, patience.remaining())
        confirmed = wire.judge_acknowledgement(reply, state)
        return confirmed or settle(patience.remaining()), endpoint

    (confirmed, endpoint), tries = patience.run(lambda: service.attempt(once))
    return Receipt(state, confirmed, endpoint, tries)


def fetch(service: Service, patience: Patience) -> Metadata:
    """Get the metadata document, retrying as `patience` says.

    Raises the error of the last try.
    """

    def once() -> Metadata:
        return ask(service, patience.remaining())

    return patience.run(lambda: service.attempt(once))[0]


def ask(service: Service, budget: float) -> Metadata:
    """Ask for the metadata document once, within `budget` seconds.

    Raises TryAgainError or RefusedError.
    """
    reply, _ = service.exchange(wire.document_request(), budget)
    body = wire.judge_document(reply)
    return Metadata(body, document.parse(body))


def user_data_keys(service: Service, patience: Patience) -> list[str]:
    """Return the keys of the user data.

    `service` asks from a port below 1024. Raises the error of the last try.
    """

    def once() -> list[str]:
        request = wire.user_data_list_request()
        return wire.judge_keys(service.exchange(request, patience.remaining())[0])

    return patience.run(lambda: service.attempt(once))[0]


def user_data(
    service: Service,
    patience: Patience,
    method: str,
    key: str,
    value: bytes | None = None,
) -> bytes:
    """Read (GET), set (PATCH) or delete (DELETE) user data; return the value read.

    Sending any of them twice has the same effect as sending it once. `service` asks
    from a port below 1024. Raises NoSuchKeyError, or the error of the last try.
    """
    request = wire.user_data_request(method, key, value)
    arrived = False  # whether an earlier try may have reached the service

    def once() -> bytes:
        nonlocal arrived
        before = arrived
        try:
            reply, _ = service.exchange(request, patience.remaining())
        except BrokenOffError:
            arrived = True
            raise
        arrived = True
        if method == "PATCH":
            wire.judge_stored(reply)
            return b""
        try:
            return wire.judge_user_data(reply, key)
        except NoSuchKeyError:
            if method == "DELETE" and before:
                return b""  # the earlier try deleted it
            raise

    return patience.run(lambda: service.attempt(once))[0]


def confirms(metadata: Metadata, state: str) -> bool:
    """Tell whether the document says that the server is in `state`."""
    return metadata.document.get("state_detail") == state


def metadata_files(metadata: Metadata) -> dict[str, bytes]:
    """Return the metadata files for scripts: their contents, by file name."""
    pairs = document.flatten(metadata.document)
    return {
        store.METADATA_JSON: metadata.body,
        store.METADATA_FLAT: flat.dump(pairs).encode(),
    }


def _await_route(parts: Parts, watch: _Watch) -> None:
    log = parts.log
    log.debug("network: looking for a route")
    try:
        endpoint = parts.network.await_route(lambda waited: _no_route(log, waited))
    except Exception as error:  # noqa: BLE001 - the signal may still get through
        log.warning(f"network: {_described(error)}; signalling anyway")
    else:
        log.info(f"network: a route to {endpoint.host} after {watch.peek():.1f} s")


def _await_dns(parts: Parts, watch: _Watch) -> None:
    log = parts.log
    if parts.await_dns is None:
        return
    log.debug("dns: waiting for an answer")
    try:
        answered = parts.await_dns()
    except Exception as error:  # noqa: BLE001 - the signal needs no DNS
        log.warning(f"dns: {_described(error)}; signalling without it")
        return
    seconds = f"{watch.peek():.1f} s"
    if answered:
        log.info(f"dns: answered after {seconds}")
    else:
        log.warning(f"dns: no answer in {seconds}; signalling without it")


def _prepare(parts: Parts) -> Preparation | None:
    """Prepare before the signal; return what is left to do after it."""
    if parts.preparation is None:
        return None
    left = _perform(
        parts, parts.preparation, parts.patience("prepare", PREPARE_SECONDS)
    )
    if left:
        parts.log.warning(f"prepare: {_named(left)} left until after the signal")
        return left
    parts.preparation.root.close()
    return None


def _catch_up(parts: Parts, left: Preparation) -> None:
    """Do after the signal what could not be done before it."""
    left = _perform(parts, left, parts.patience("prepare", LATE_SECONDS))
    if left:
        parts.log.error(f"prepare: gave up; not done in this boot: {_named(left)}")
    left.root.close()


def _perform(parts: Parts, due: Preparation, patience: Patience) -> Preparation:
    """Do the preparations; return those for which the service gave no answer.

    Failures are logged, not raised: the signal must go out in any case.
    """
    log = parts.log
    try:
        metadata = fetch(parts.service, patience)
    except ScwSignalError as error:
        log.warning(f"prepare: {error}")
        return due
    _write_files(parts, metadata_files(metadata))  # the script may read them
    if due.hostname:
        due = due._replace(hostname=False)
        try:
            name = _string(metadata, "hostname")
            log.info(f"hostname: {due.root.set_hostname(name)}")
        except ScwSignalError as error:
            log.warning(f"hostname: {error}")
    if due.user_data:
        try:
            script = _user_data(due.service, patience)
        except ScwSignalError as error:
            log.warning(f"user-data: {error}")
            return due
        due = due._replace(user_data=False)
        _run(parts, due.root, metadata, script)
    return due


def _user_data(service: Service, patience: Patience) -> bytes | None:
    """Return the user data for the first boot, or None if there is none."""
    if USER_DATA_KEY not in user_data_keys(service, patience):
        return None
    return user_data(service, patience, "GET", USER_DATA_KEY)


def _run(parts: Parts, root: Parent, metadata: Metadata, script: bytes | None) -> None:
    log = parts.log
    if script is None:
        log.info("user-data: there is none")
        return
    other = not_a_script(script)
    if other is not None:
        log.warning(f"user-data: not run: {other}")
        return
    try:
        done = root.run_user_data(_string(metadata, "id"), script)
        log.info(f"user-data: {done}")
    except ScwSignalError as error:
        log.warning(f"user-data: {error}")


def _string(metadata: Metadata, key: str) -> str:
    """Return a string of the document; raises NonsenseError if it is not one."""
    value = metadata.document.get(key)
    if not isinstance(value, str) or not value:
        raise NonsenseError(f"the metadata has no usable {key}; nothing is changed")
    return value


def _named(due: Preparation) -> str:
    return " and ".join(
        name
        for name, open_ in (("hostname", due.hostname), ("user-data", due.user_data))
        if open_
    )


class _Settlement:
    """Asks the document about a signal whose reply named no state."""

    def __init__(self, service: Service, state: str, clock: Clock) -> None:
        self._service, self._state, self._clock = service, state, clock
        self._denials = 0
        self._first = math.inf  # moment of the first denial

    def __call__(self, budget: float) -> bool:
        """Return True if the document confirms the signal, False if it cannot tell.

        Raises OtherStateError if the document denies the signal; after MOST_DENIALS
        over at least DENIAL_SECONDS it returns False instead. Raises TryAgainError if
        the document cannot be read, since that confirms nothing.
        """
        try:
            found = ask(self._service, budget).document.get("state_detail")
        except (TryAgainError, RefusedError) as error:
            raise TryAgainError(
                f"the reply names no state, and /conf cannot be read: {error}",
                after=getattr(error, "after", 0.0),
                overload=getattr(error, "overload", False),
            ) from None
        if not isinstance(found, str) or not found:
            return False
        if found == self._state:
            return True
        now = self._clock.monotonic()
        self._denials += 1
        self._first = min(self._first, now)
        if self._denials >= MOST_DENIALS and now - self._first >= DENIAL_SECONDS:
            return False
        raise OtherStateError(
            f"/conf says {printable(found, 40)!r}, not {self._state!r}"
        )


def _metadata(parts: Parts) -> Metadata | None:
    try:
        return fetch(parts.service, parts.patience("metadata", METADATA_SECONDS))
    except ScwSignalError as error:
        parts.log.warning(f"metadata: not available: {error}")
        return None


def _read_back(receipt: Receipt, metadata: Metadata, log: Log) -> Receipt:
    """Look in the document for the state that the acknowledgement did not name."""
    if confirms(metadata, receipt.state):
        log.info(f"signal: confirmed, /conf says {receipt.state!r}")
        return receipt._replace(confirmed=True)
    found = printable(str(metadata.document.get("state_detail")), 40)
    log.warning(f"signal: unconfirmed, /conf says {found!r}")
    return receipt


def _write_files(parts: Parts, files: dict[str, bytes]) -> bool:
    """Write files if possible; a boot goes on without them."""
    if parts.store is None:
        return False
    try:
        for name, data in files.items():
            parts.store.write(name, data)
    except StoreError as error:
        parts.log.warning(f"cannot write: {error}")
        return False
    return True


def _report(receipt: Receipt, stages: tuple[float, float, float]) -> dict[str, bytes]:
    """Return the state file: the signal, its tries and the time of each stage."""
    network, dns, signal_ = (f"{seconds:.3f}" for seconds in stages)
    pairs = (
        ("STATE_DETAIL", receipt.state),
        ("CONFIRMED", str(receipt.confirmed)),
        ("URL", receipt.endpoint.url),
        ("TRIES", str(receipt.tries)),
        ("NETWORK_SECONDS", network),
        ("DNS_SECONDS", dns),
        ("SIGNAL_SECONDS", signal_),
    )
    return {store.STATE_FILE: render.text(pairs).encode()}


def _no_route(log: Log, waited: float) -> float:
    """Log that there is still no route; return the seconds until the next report."""
    if waited < backoff.REPORT_FIRST:
        log.info("network: waiting for a route")
        return backoff.REPORT_FIRST
    log.warning(f"network: still no route after {waited:.0f} s")
    return min(waited, backoff.REPORT_CAP)


def _translated(operation: Callable[[], T]) -> Callable[[], T]:
    """Make an unexpected exception count as a failed try."""

    def translated() -> T:
        try:
            return operation()
        except ScwSignalError:
            raise
        except Exception as error:
            raise TryAgainError(_described(error)) from error

    return translated


def _described(error: Exception) -> str:
    from .log import bug  # noqa: PLC0415 - the commands do not load syslog

    return bug(error)


class _Watch:
    """A stopwatch: seconds since the last lap."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = clock.monotonic()

    def peek(self) -> float:
        return self._clock.monotonic() - self._start

    def lap(self) -> float:
        seconds = self.peek()
        self._start += seconds
        return seconds
