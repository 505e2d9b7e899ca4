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
    GaveUpError,
    OtherStateError,
    RefusedError,
    ScwSignalError,
    StoreError,
    TryAgainError,
)
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
USER_DATA_KEY = "cloud-init"  # where the console puts it
METADATA_SECONDS = 60.0  # for the metadata, once the signal has gone out
# A service whose reply names no state, and whose document has another one, is
# signalled again so many times. Without a bound, one that changed its reply and
# is slow to change its document would be for ever.
MOST_DENIALS = 3

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
        once: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take the bound in seconds (inf for none), which begins now.

        `pause` waits for a delay and its floor (see Network.pause); `report`
        hears of each failed try; `insist` says to try again after a refusal,
        and to wait for minutes where the service has too much to do; `once`,
        not to try again at all; `chance` draws from [0, 1).
        """
        self._clock = clock
        self._start = clock.monotonic()
        self._seconds = seconds
        self._pause = pause
        self._report = report
        self._insist = insist
        self._once = once
        self._chance = chance

    def remaining(self) -> float:
        """Return the seconds left, inf for no bound."""
        return self._seconds - (self._clock.monotonic() - self._start)

    def run(self, operation: Callable[[], T]) -> tuple[T, int]:
        """Call `operation` until it succeeds; return its result and the tries.

        Raises GaveUpError when the time has passed, RefusedError when a refusal
        ends it, and with `once` what the one try failed with.
        """
        try:
            return operation(), 1
        except (TryAgainError, RefusedError) as error:
            if self._once or (isinstance(error, RefusedError) and not self._insist):
                raise
            first = error
        # Here, and not above: a first try that is good, which is nearly
        # every one that a person makes, need not wait for tenacity.
        from .retrying import persist  # noqa: PLC0415

        try:
            return persist(
                operation,
                first,
                insist=self._insist,
                remaining=self.remaining,
                pause=self._pause,
                report=self._report,
                chance=self._chance,
            )
        except (TryAgainError, RefusedError) as last:
            if isinstance(last, RefusedError) and not self._insist:
                raise
            spent = self._seconds - self.remaining()
            raise GaveUpError(f"{last}; gave up after {spent:.1f} s") from None


class Preparation(NamedTuple):
    """What is to be done before the signal, and who does it."""

    root: Parent
    service: Service  # asks from a port below 1024
    hostname: bool
    user_data: bool


class Parts(NamedTuple):
    """What the agent works with."""

    clock: Clock
    network: Network
    await_dns: Callable[[], bool] | None  # tells whether it answered; None skips it
    service: Service
    store: Store | None  # None where the run directory can not be written
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
    log.debug("network: looking for a route")
    endpoint = parts.network.await_route(lambda waited: _no_route(log, waited))
    network_seconds = watch.lap()
    log.info(f"network: a route to {endpoint.host} after {network_seconds:.1f} s")

    if parts.await_dns is not None:
        log.debug("dns: waiting for an answer")
        if parts.await_dns():
            log.info(f"dns: answered after {watch.peek():.1f} s")
        else:
            log.warning(
                f"dns: no answer in {watch.peek():.1f} s; signalling without it"
            )
    dns_seconds = watch.lap()
    if parts.preparation is not None:
        _prepare(parts, parts.preparation)
        parts.preparation.root.close()
        watch.lap()
    parts.narrow("signal")

    patience = parts.patience("signal", deadline)
    receipt = signal(parts.service, state, patience, denials=MOST_DENIALS)
    signal_seconds = watch.lap()
    log.info(
        f"signal: {state!r} {'acknowledged' if receipt.confirmed else 'taken'} by"
        f" {receipt.endpoint.url} after {signal_seconds:.1f} s, try {receipt.tries}"
    )
    stages = (network_seconds, dns_seconds, signal_seconds)
    _leave(parts, _report(receipt, stages))

    metadata = _metadata(parts)
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
    service: Service, state: str, patience: Patience, *, denials: int = 0
) -> Receipt:
    """Signal `state`, as often as `patience` says, until it is acknowledged.

    A reply that names no state is held against the document at once, and so many
    `denials` there are failed tries; after that the signal counts as sent. Raises
    what the last try failed with.
    """

    def once() -> tuple[bool, Endpoint]:
        nonlocal denials
        reply, endpoint = service.exchange(
            wire.state_request(state), patience.remaining()
        )
        confirmed = wire.judge_acknowledgement(reply, state)
        if not confirmed and denials > 0:
            denials -= 1
            confirmed = _look_up(service, state, patience.remaining())
        return confirmed, endpoint

    (confirmed, endpoint), tries = patience.run(once)
    return Receipt(state, confirmed, endpoint, tries)


def fetch(service: Service, patience: Patience) -> Metadata:
    """Get the metadata document, trying as often as `patience` says.

    Raises what the last try failed with.
    """
    return patience.run(lambda: ask(service, patience.remaining()))[0]


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

    return patience.run(once)[0]


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

    def once() -> bytes:
        request = wire.user_data_request(method, key, value)
        reply, _ = service.exchange(request, patience.remaining())
        return wire.judge_user_data(reply, key)

    return patience.run(once)[0]


def confirms(metadata: Metadata, state: str) -> bool:
    """Tell whether the document says that the server is in `state`."""
    return metadata.document.get("state_detail") == state


def metadata_files(metadata: Metadata) -> dict[str, bytes]:
    """Return the files that carry the metadata, for scripts, by name."""
    pairs = document.flatten(metadata.document)
    return {
        store.METADATA_JSON: metadata.body,
        store.METADATA_FLAT: flat.dump(pairs).encode(),
        store.METADATA_ENV: render.shell(pairs).encode(),
    }


def _prepare(parts: Parts, preparation: Preparation) -> None:
    """Do what comes before the signal; what fails is logged, and holds nothing up."""
    patience = parts.patience("prepare", PREPARE_SECONDS)
    try:
        tree = fetch(parts.service, patience).document
    except ScwSignalError as error:
        parts.log.warning(f"prepare: {error}")
        return
    if preparation.hostname:
        try:
            done = preparation.root.set_hostname(str(tree.get("hostname")))
            parts.log.info(f"hostname: {done}")
        except ScwSignalError as error:
            parts.log.warning(f"hostname: {error}")
    if preparation.user_data:
        try:
            done = _run_user_data(preparation, patience, str(tree.get("id")))
            parts.log.info(f"user-data: {done}")
        except ScwSignalError as error:
            parts.log.warning(f"user-data: {error}")


def _run_user_data(preparation: Preparation, patience: Patience, instance: str) -> str:
    if USER_DATA_KEY not in user_data_keys(preparation.service, patience):
        return "there is none"
    script = user_data(preparation.service, patience, "GET", USER_DATA_KEY)
    if not script.startswith(b"#!"):
        return "not a script: it does not begin with #!"
    return preparation.root.run_user_data(instance, script)


def _look_up(service: Service, state: str, budget: float) -> bool:
    """Tell whether the document has `state`; False where it is not known.

    Raises OtherStateError.
    """
    try:
        found = ask(service, budget).document.get("state_detail")
    except ScwSignalError:
        return False
    if isinstance(found, str) and found != state:
        raise OtherStateError(f"/conf says {printable(found, 40)!r}, not {state!r}")
    return found == state


def _metadata(parts: Parts) -> Metadata | None:
    try:
        return fetch(parts.service, parts.patience("metadata", METADATA_SECONDS))
    except ScwSignalError as error:
        parts.log.warning(f"metadata: not to be had: {error}")
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
        parts.log.warning(f"can not write: {error}")
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
    return {store.STATE: render.text(pairs).encode()}


def _no_route(log: Log, waited: float) -> float:
    """Log that there is still no route; return when to say so again."""
    if waited < backoff.REPORT_FIRST:
        log.info("network: waiting for a route")
        return backoff.REPORT_FIRST
    log.warning(f"network: still no route after {waited:.0f} s")
    return min(waited, backoff.REPORT_CAP)


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
