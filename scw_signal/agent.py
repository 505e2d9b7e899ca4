"""What is done: the boot signal, and asking for the metadata.

Each function here is a use case. What it works with (clock, network, service,
store, log) comes in as arguments, so this is the whole story and no more:

    boot    wait for a route, wait for DNS, do what comes before the signal,
            signal until acknowledged, leave the state and the metadata behind
    signal  send one state, trying again as Patience says
    fetch   get the metadata document, likewise
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

PREPARE_SECONDS = 30.0  # for the questions of what comes before the signal
LATE_SECONDS = 600.0  # and for them once it has gone out: nothing waits any more
USER_DATA_KEY = "cloud-init"  # where the console puts it
METADATA_SECONDS = 60.0  # for the metadata, once the signal has gone out
# A service whose reply names no state, and whose document has another one, has
# denied the signal. Without a bound, the agent would signal forever to one that has
# changed its reply and does not change its document.
MOST_DENIALS = 3
DENIAL_SECONDS = 120.0  # from the first denial to the last, at least

T = TypeVar("T")


class Receipt(NamedTuple):
    """A signal that went out: what, to whom, and what it took."""

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
        """Take the bound in seconds (inf for none), which begins now.

        `pause` waits for a delay and its floor (see Network.pause); `report`
        hears of each failed try; `insist` says to try again after a refusal
        too, and that nobody waits, so that the first delays may be longer;
        `unattended`, that an error which is none of ours is a failed try, since
        nobody is there to report it; `once`, not to try again at all; `limit` names
        the option that `seconds` come from; `chance` draws from [0, 1).
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
        """Return the seconds left, inf for no bound."""
        return self._seconds - (self._clock.monotonic() - self._start)

    def run(self, operation: Callable[[], T]) -> tuple[T, int]:
        """Call `operation` until it succeeds; return its result and the tries.

        Raises GaveUpError when the time has passed, RefusedError when a refusal
        ends it, and with `once` what the one try failed with.
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
        # Here, and not above: a first try that is good, which is nearly
        # every one that a person makes, need not wait for tenacity.
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
            # A last try that the limit itself has cut short says nothing of the cause.
            told = before if self.remaining() <= 0 else last
            spent = f"{self._seconds - self.remaining():.1f}".removesuffix(".0")
            raise GaveUpError(f"{told}; gave up after {spent} s{self._limit}") from None


class Preparation(NamedTuple):
    """What root is to do before the signal, and who does it."""

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
    await_dns: Callable[[], bool] | None  # tells whether it answered; None skips it
    service: Service
    store: Store | None  # None where the run directory cannot be written
    log: Log
    patience: Callable[[str, float], Patience]  # by stage and seconds
    narrow: Callable[[str], None]  # gives up what the rest can do without
    preparation: Preparation | None = None


def boot(parts: Parts, state: str, deadline: float = math.inf) -> Receipt:
    """Do the whole work of a boot; return what went out.

    `deadline` bounds the signal stage, in seconds. Raises ScwSignalError when
    that has passed.
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
    _leave(parts, _report(receipt, stages))

    metadata = _metadata(parts)
    if left:
        _catch_up(parts, left)
    # A socket that is left for the interpreter to close is asked for its name
    # before, which takes the promise that is given up next: so it was with root's.
    parts.network.close()
    parts.narrow("leave")
    if not receipt.confirmed and metadata is not None:
        receipt = _read_back(receipt, metadata, log)
        _leave(parts, _report(receipt, stages))
    if metadata is not None and _leave(parts, metadata_files(metadata)):
        log.info(f"metadata: stored after {watch.lap():.1f} s")
    return receipt


def signal(
    service: Service,
    state: str,
    patience: Patience,
    settle: Callable[[float], bool] = lambda _budget: False,
) -> Receipt:
    """Signal `state`, as often as `patience` says, until it is acknowledged.

    Where a reply names no state, `settle` tells within a budget of seconds whether
    the signal is confirmed, or raises what the try has failed with. Raises what the
    last try failed with.
    """

    def once() -> tuple[bool, Endpoint]:
        request = wire.state_request(state)
        reply, endpoint = service.exchange(request, patience.remaining())
        confirmed = wire.judge_acknowledgement(reply, state)
        return confirmed or settle(patience.remaining()), endpoint

    (confirmed, endpoint), tries = patience.run(lambda: service.attempt(once))
    return Receipt(state, confirmed, endpoint, tries)


def fetch(service: Service, patience: Patience) -> Metadata:
    """Get the metadata document, trying as often as `patience` says.

    Raises what the last try failed with.
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

    `service` asks from a port below 1024. Raises what the last try failed with.
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

    Each of them may be sent twice and does the same as once. `service` asks from
    a port below 1024. Raises NoSuchKeyError, or what the last try failed with.
    """
    request = wire.user_data_request(method, key, value)
    arrived = False  # an earlier try, perhaps

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
                return b""  # that try had done it
            raise

    return patience.run(lambda: service.attempt(once))[0]


def confirms(metadata: Metadata, state: str) -> bool:
    """Tell whether the document says that the server is in `state`."""
    return metadata.document.get("state_detail") == state


def metadata_files(metadata: Metadata) -> dict[str, bytes]:
    """Return the files that carry the metadata, for scripts, by name."""
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
    except Exception as error:  # noqa: BLE001 - the signal may go out all the same
        log.warning(f"network: {_described(error)}; signalling all the same")
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
    """Do what comes before the signal; return what is left to do after it."""
    if parts.preparation is None:
        return None
    left = _perform(
        parts, parts.preparation, parts.patience("prepare", PREPARE_SECONDS)
    )
    if left:
        parts.log.warning(f"prepare: {_named(left)} comes after the signal")
        return left
    parts.preparation.root.close()
    return None


def _catch_up(parts: Parts, left: Preparation) -> None:
    """Do after the signal what could not be done before."""
    left = _perform(parts, left, parts.patience("prepare", LATE_SECONDS))
    if left:
        parts.log.error(f"prepare: gave up; not done in this boot: {_named(left)}")
    left.root.close()


def _perform(parts: Parts, due: Preparation, patience: Patience) -> Preparation:
    """Do what root is asked for; return what the service has kept from being done.

    Nothing is raised: what fails is logged, and the signal goes out all the same.
    """
    log = parts.log
    try:
        metadata = fetch(parts.service, patience)
    except ScwSignalError as error:
        log.warning(f"prepare: {error}")
        return due
    _leave(parts, metadata_files(metadata))  # a script may look there
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
    """Return the user data for the first boot, None where there is none."""
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
    """Return a value of the document; raises NonsenseError where it is no string."""
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
    """What the document says of a signal whose reply named no state."""

    def __init__(self, service: Service, state: str, clock: Clock) -> None:
        self._service, self._state, self._clock = service, state, clock
        self._denials = 0
        self._first = math.inf  # moment of the first denial

    def __call__(self, budget: float) -> bool:
        """Tell whether the document confirms the signal; False: it cannot tell.

        Raises OtherStateError where it denies the signal, at last not any more, and
        TryAgainError where there is no document: not to be able to look is no
        confirmation.
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
    """Look in the document for what the acknowledgement did not say."""
    if confirms(metadata, receipt.state):
        log.info(f"signal: confirmed, /conf says {receipt.state!r}")
        return receipt._replace(confirmed=True)
    found = printable(str(metadata.document.get("state_detail")), 40)
    log.warning(f"signal: unconfirmed, /conf says {found!r}")
    return receipt


def _leave(parts: Parts, files: dict[str, bytes]) -> bool:
    """Write files if that can be done; a boot goes on without them."""
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
    """Return the state file: what was signalled, and what it took."""
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
    """Log that there is still no route; return when to say so again."""
    if waited < backoff.REPORT_FIRST:
        log.info("network: waiting for a route")
        return backoff.REPORT_FIRST
    log.warning(f"network: still no route after {waited:.0f} s")
    return min(waited, backoff.REPORT_CAP)


def _translated(operation: Callable[[], T]) -> Callable[[], T]:
    """Have an error that is none of ours count as a failed try."""

    def translated() -> T:
        try:
            return operation()
        except ScwSignalError:
            raise
        except Exception as error:
            raise TryAgainError(_described(error)) from error

    return translated


def _described(error: Exception) -> str:
    from .log import bug  # noqa: PLC0415 - a command by hand loads no syslog

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
