"""A whole boot, with fakes that record the order in which they are called."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pytest

from fakes import FakeClock
from scw_signal import agent, flat
from scw_signal.agent import Metadata, Parts, Patience, Preparation, Receipt
from scw_signal.errors import (
    BrokenOffError,
    DutyError,
    GaveUpError,
    NonsenseError,
    NoSuchKeyError,
    NotRootError,
    OtherStateError,
    RefusedError,
    ScwSignalError,
    Stopped,
    StoreError,
    TryAgainError,
    UnavailableError,
    UnreachableError,
)
from scw_signal.log import Log, bug
from scw_signal.network import Network
from scw_signal.privileged import Parent
from scw_signal.store import Store
from scw_signal.transport import Service
from scw_signal.wire import Endpoint, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
V4 = Endpoint("169.254.42.42")
V6 = Endpoint("fd00:42::42")
ACKNOWLEDGED = Reply(200, {}, b"STATE_DETAIL=booted\n")
SILENT = Reply(204, {}, b"")
BUSY = Reply(429, {}, b"")
BODY = b'{"hostname": "puffy", "state_detail": "booted"}'
DOCUMENT = Reply(200, {}, BODY)
PATCH, GET = "PATCH /state", "GET /conf?format=json"
METADATA_FILES = ["write metadata.json", "write metadata.flat"]


class FakeNetwork(Network):
    """A route that appears at a set time; pauses that only pass fake time."""

    def __init__(self, story: list[str], clock: FakeClock) -> None:
        self.story, self.clock = story, clock
        self.route_after = 0.0
        self.found = V4

    def close(self) -> None:
        self.story.append("close network")

    def await_route(self, report: Callable[[float], float]) -> Endpoint:
        self.story.append("route")
        waited = 0.0
        while waited < self.route_after:
            step = min(report(waited), self.route_after - waited)
            self.clock.wait(step)
            waited += step
        return self.found

    def pause(self, seconds: float, floor: float) -> None:
        assert floor >= 0
        self.clock.wait(seconds)


class FakeResolver:
    """Answers, or fails, after some seconds."""

    def __init__(self, story: list[str], clock: FakeClock) -> None:
        self.story, self.clock = story, clock
        self.takes, self.answers = 0.0, True

    def __call__(self) -> bool:
        self.story.append("dns")
        self.clock.wait(self.takes)
        return self.answers


class FakeService(Service):
    """Gives the planned answers in turn, and then repeats the last one."""

    def __init__(self, story: list[str], clock: FakeClock) -> None:
        self.story, self.clock = story, clock
        self.takes = 0.0
        self.endpoint = V4
        self.budgets: list[float] = []
        self.attempts = 0
        self.answers: dict[str, list[Reply | Exception]] = {
            PATCH: [ACKNOWLEDGED],
            GET: [DOCUMENT],
        }

    def attempt(self, operation: Callable[[], T]) -> T:
        self.attempts += 1
        return operation()

    def exchange(self, request: Request, budget: float) -> tuple[Reply, Endpoint]:
        line = f"{request.method} {request.target}"
        self.story.append(line)
        self.budgets.append(budget)
        self.clock.wait(self.takes)
        answers = self.answers[line]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer, self.endpoint


class FakeStore(Store):
    """Keeps files in a dictionary, unless it is told to be full."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.files: dict[str, bytes] = {}
        self.states: list[bytes] = []  # every version of the file "state"
        self.full_for: set[str] = set()

    def write(self, name: str, data: bytes, mode: int = 0o644) -> None:  # noqa: ARG002
        self.story.append(f"write {name}")
        if name in self.full_for:
            raise StoreError("/var/run/scw_signal: No space left on device")
        self.files[name] = data
        if name == "state":
            self.states.append(data)


class FakeParent(Parent):
    """The root process: does what it is asked, or says why it cannot."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.failure: ScwSignalError | None = None

    def close(self) -> None:
        self.story.append("close root")

    def set_hostname(self, name: str) -> str:
        return self._do(f"hostname {name}")

    def run_user_data(self, instance: str, script: bytes) -> str:
        return self._do(f"run {script!r} for {instance}")

    def _do(self, what: str) -> str:
        self.story.append(what)
        if self.failure is not None:
            raise self.failure
        return "done"


class Boot:
    """A boot on which everything works, unless a test says otherwise."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.story: list[str] = []
        self.lines: list[str] = []
        self.network = FakeNetwork(self.story, self.clock)
        self.resolver: FakeResolver | None = FakeResolver(self.story, self.clock)
        self.service = FakeService(self.story, self.clock)
        self.store: FakeStore | None = FakeStore(self.story)
        self.bounds: list[tuple[str, float]] = []
        self.root = FakeParent(self.story)
        self.preparation: Preparation | None = None

    def prepare(self, *, hostname: bool = False, user_data: bool = False) -> None:
        """Plan something to be done before the signal."""
        self.preparation = Preparation(self.root, self.service, hostname, user_data)

    def run(self, deadline: float = math.inf) -> Receipt:
        return agent.boot(self.parts(), "booted", deadline)

    def parts(self) -> Parts:
        return Parts(
            clock=self.clock,
            network=self.network,
            await_dns=self.resolver,
            service=self.service,
            store=self.store,
            log=Log(lambda _level, line: self.lines.append(line), verbose=False),
            patience=self._patience,
            narrow=lambda stage: self.story.append(f"narrow {stage}"),
            preparation=self.preparation,
        )

    def _patience(self, stage: str, seconds: float) -> Patience:
        self.bounds.append((stage, seconds))
        return Patience(
            self.clock,
            seconds,
            self.network.pause,
            lambda error, tries, _delay: self.lines.append(f"{stage} {tries}: {error}"),
            insist=stage != "prepare",
            unattended=True,
            chance=lambda: 0.5,
        )

    @property
    def files(self) -> dict[str, bytes]:
        assert self.store is not None
        return self.store.files

    def state(self) -> dict[str, str]:
        """Return the state file, parsed."""
        lines = self.files["state"].decode().splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def boot() -> Boot:
    return Boot()


# A boot on which everything works.


def test_a_boot_takes_its_stages_in_order_and_narrows_between_them(boot: Boot) -> None:
    boot.run()
    assert boot.story == [
        "route", "dns", "narrow signal", PATCH, "write state", GET,
        "close network", "narrow leave", *METADATA_FILES,
    ]  # fmt: skip


def test_a_boot_logs_a_line_for_each_stage_with_its_seconds(boot: Boot) -> None:
    boot.network.route_after = 12.0
    assert boot.resolver is not None
    boot.resolver.takes = 2.0
    boot.service.takes = 0.5
    boot.run()
    assert boot.lines == [
        "network: waiting for a route",
        "network: a route to 169.254.42.42 after 12.0 s",
        "dns: answered after 2.0 s",
        "signal: 'booted' acknowledged by http://169.254.42.42 after 0.5 s, try 1",
        "metadata: stored after 0.5 s",
    ]


def test_the_receipt_says_what_was_signalled(boot: Boot) -> None:
    assert boot.run() == Receipt("booted", confirmed=True, endpoint=V4, tries=1)


def test_the_state_file_says_what_was_signalled_and_what_it_took(boot: Boot) -> None:
    boot.network.route_after = 12.0
    assert boot.resolver is not None
    boot.resolver.takes = 2.0
    boot.service.takes = 0.5
    boot.service.endpoint = Endpoint("fd00:42::42", 8080)
    boot.run()
    assert boot.state() == {
        "STATE_DETAIL": "booted",
        "CONFIRMED": "True",
        "URL": "'http://[fd00:42::42]:8080'",
        "TRIES": "1",
        "NETWORK_SECONDS": "12.000",
        "DNS_SECONDS": "2.000",
        "SIGNAL_SECONDS": "0.500",
    }


def test_the_metadata_is_left_behind_in_its_two_forms(boot: Boot) -> None:
    boot.run()
    assert boot.files["metadata.json"] == BODY
    assert list(flat.load(boot.files["metadata.flat"].decode())) == [
        ("HOSTNAME", "puffy"), ("STATE_DETAIL", "booted"),
    ]  # fmt: skip
    assert set(boot.files) == {"state", "metadata.json", "metadata.flat"}


# The network and the resolver.


def test_waiting_for_a_route_is_logged_at_growing_intervals(boot: Boot) -> None:
    boot.network.route_after = 3 * 3600.0
    boot.run()
    hours = [line for line in boot.lines if line.startswith("network:")]
    assert hours == [
        "network: waiting for a route",
        *(
            f"network: still no route after {seconds} s"
            for seconds in (60, 120, 240, 480, 960, 1920, 3840, 7440)
        ),
        "network: a route to 169.254.42.42 after 10800.0 s",
    ]


def test_without_a_resolver_nothing_waits_for_it_or_mentions_it(boot: Boot) -> None:
    boot.resolver = None
    boot.run()
    assert "dns" not in boot.story
    assert not [line for line in boot.lines if "dns" in line]
    assert boot.state()["DNS_SECONDS"] == "0.000"


def test_a_resolver_that_never_answers_is_a_warning_and_the_signal_goes_out(
    boot: Boot,
) -> None:
    assert boot.resolver is not None
    boot.resolver.takes, boot.resolver.answers = 15.0, False
    assert boot.run().confirmed
    assert "dns: no answer in 15.0 s; signalling without it" in boot.lines
    assert boot.state()["DNS_SECONDS"] == "15.000"


# The signal.


@pytest.mark.parametrize(
    "failure",
    [
        UnreachableError("no route"),
        BrokenOffError("no answer in time"),
        BUSY,
        Reply(404, {}, b""),
        Reply(503, {}, b"<html>"),
        Reply(403, {}, b"no"),
        Reply(301, {"Location": "http://elsewhere"}, b""),
        Reply(200, {}, b"STATE_DETAIL=stopping\n"),
        Reply(200, {"Content-Type": "text/html"}, b"welcome"),
        Reply(200, {}, b"\n<html>"),
        ValueError("a mistake"),
        RuntimeError("of a library"),
    ],
    ids=str,
)
def test_the_signal_is_sent_until_it_is_acknowledged(
    boot: Boot, failure: Reply | ScwSignalError
) -> None:
    boot.service.answers[PATCH] = [failure, failure, ACKNOWLEDGED]
    assert boot.run() == Receipt("booted", confirmed=True, endpoint=V4, tries=3)
    assert boot.story.count(PATCH) == 3
    assert boot.state()["TRIES"] == "3"
    assert [line for line in boot.lines if line.startswith(("signal 1", "signal 2"))]


def test_without_a_deadline_the_signal_has_no_bound(boot: Boot) -> None:
    boot.service.answers[PATCH] = [*[BUSY] * 1000, ACKNOWLEDGED]
    assert boot.run().tries == 1001
    assert boot.bounds[0] == ("signal", math.inf)


def test_when_the_deadline_has_passed_the_agent_gives_up(boot: Boot) -> None:
    boot.service.takes = 0.01
    boot.service.answers[PATCH] = [UnreachableError("no route")]
    with pytest.raises(GaveUpError, match=r"^no route; gave up after 30 s$"):
        boot.run(deadline=30.0)
    assert GET not in boot.story
    assert boot.files == {}


def test_no_try_may_take_longer_than_is_left(boot: Boot) -> None:
    boot.service.takes = 4.0
    boot.service.answers[PATCH] = [BUSY]
    with pytest.raises(GaveUpError):
        boot.run(deadline=20.0)
    start = boot.service.budgets[0]
    assert start == 20.0
    assert boot.service.budgets == sorted(boot.service.budgets, reverse=True)
    assert boot.service.budgets[-1] >= 1.0


def test_the_deadline_is_for_the_signal_and_not_for_what_comes_before(
    boot: Boot,
) -> None:
    boot.network.route_after = 3600.0
    assert boot.run(deadline=5.0).confirmed


def test_refused_up_to_the_deadline_the_agent_ends_with_an_error(boot: Boot) -> None:
    boot.service.takes = 0.01
    boot.service.answers[PATCH] = [Reply(403, {}, b"")]
    with pytest.raises(GaveUpError, match=r"403.*gave up after"):
        boot.run(deadline=60.0)
    assert boot.story.count(PATCH) > 2


# An acknowledgement that confirms nothing.


def test_a_signal_whose_reply_names_no_state_is_confirmed_by_the_document(
    boot: Boot,
) -> None:
    boot.service.answers[PATCH] = [SILENT]
    assert boot.run().confirmed
    assert boot.story.count(PATCH) == 1
    assert boot.lines[-2:] == [
        "signal: 'booted' acknowledged by http://169.254.42.42 after 0.0 s, try 1",
        "metadata: stored after 0.0 s",
    ]
    assert boot.store is not None
    (only,) = boot.store.states
    assert b"CONFIRMED=True\n" in only


def test_a_document_that_confirms_a_signal_later_is_believed(boot: Boot) -> None:
    boot.service.answers[PATCH] = [SILENT]
    boot.service.answers[GET] = [Reply(200, {}, b"{}"), DOCUMENT]
    assert boot.run().confirmed
    assert boot.lines[-3:] == [
        f"signal: 'booted' sent, but unconfirmed, to {V4.url} after 0.0 s, try 1",
        "signal: confirmed, /conf says 'booted'",
        "metadata: stored after 0.0 s",
    ]
    assert boot.store is not None
    before, after = boot.store.states
    assert b"CONFIRMED=False\n" in before
    assert b"CONFIRMED=True\n" in after
    assert before.replace(b"False", b"True") == after


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ('""', "''"),
        ("null", "'None'"),
        ("7", "'7'"),
        ('["booted"]', "\"['booted']\""),
        ('["\\u001b[31m"]', "\"['\\\\x1b[31m']\""),
        (f'["{"x" * 300}"]', f'"[\'{"x" * 35}..."'),
    ],
)
def test_a_document_without_a_usable_state_leaves_the_signal_unconfirmed(
    boot: Boot, state: str, shown: str
) -> None:
    boot.service.answers[PATCH] = [SILENT]
    body = f'{{"state_detail": {state}}}'.encode()
    boot.service.answers[GET] = [Reply(200, {}, body)]
    assert not boot.run().confirmed
    assert f"signal: unconfirmed, /conf says {shown}" in boot.lines
    assert boot.state()["CONFIRMED"] == "False"
    assert boot.files["metadata.json"] == body


def test_a_document_without_a_state_leaves_the_signal_unconfirmed(boot: Boot) -> None:
    boot.service.answers[PATCH] = [SILENT]
    boot.service.answers[GET] = [Reply(200, {}, b"{}")]
    assert not boot.run().confirmed
    assert "signal: unconfirmed, /conf says 'None'" in boot.lines


DENIAL = Reply(200, {}, b'{"state_detail": "booting kernel"}')


def test_a_signal_that_the_document_denies_is_sent_again(boot: Boot) -> None:
    boot.service.answers[PATCH] = [SILENT]
    boot.service.answers[GET] = [DENIAL, DENIAL, DOCUMENT]
    assert boot.run() == Receipt("booted", confirmed=True, endpoint=V4, tries=3)
    assert "signal 1: /conf says 'booting kernel', not 'booted'" in boot.lines


def test_a_signal_that_the_document_keeps_denying_for_two_minutes_counts_as_sent(
    boot: Boot,
) -> None:
    boot.service.takes = 10.0
    boot.service.answers[PATCH] = [SILENT]
    boot.service.answers[GET] = [DENIAL]
    start = boot.clock.now
    receipt = boot.run()
    assert not receipt.confirmed
    assert receipt.tries > 3
    assert boot.clock.now - start > 120.0
    assert "sent, but unconfirmed, to http://169.254.42.42" in boot.lines[-3]
    assert boot.lines[-2] == "signal: unconfirmed, /conf says 'booting kernel'"


@pytest.mark.parametrize(("each", "least"), [(0.0, 120.0), (300.0, 600.0)])
def test_it_takes_three_denials_and_two_minutes(
    boot: Boot, each: float, least: float
) -> None:
    boot.service.takes = each / 2  # of the signal, and of the document
    boot.service.answers[PATCH] = [SILENT]
    boot.service.answers[GET] = [DENIAL]
    start = boot.clock.now
    assert boot.run().tries >= 3
    assert boot.clock.now - start >= least


def test_a_denial_is_no_success_when_the_deadline_passes(boot: Boot) -> None:
    boot.service.answers[PATCH] = [SILENT]
    boot.service.answers[GET] = [DENIAL]
    with pytest.raises(GaveUpError, match="/conf says 'booting kernel', not 'booted'"):
        boot.run(deadline=0.5)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(UnreachableError("no route"), id="no connection"),
        pytest.param(Reply(503, {}, b""), id="not there"),
        pytest.param(Reply(403, {}, b""), id="refused"),
        pytest.param(Reply(200, {}, b"<html>"), id="a web page"),
        pytest.param(Reply(200, {}, b"[]"), id="no document"),
    ],
)
def test_a_signal_that_cannot_be_checked_is_sent_again(
    boot: Boot, answer: Reply | ScwSignalError
) -> None:
    boot.service.answers[PATCH] = [SILENT]
    boot.service.answers[GET] = [answer, answer, answer, answer, DOCUMENT]
    assert boot.run() == Receipt("booted", confirmed=True, endpoint=V4, tries=5)
    assert "signal 1: the reply names no state, and /conf cannot be read: " in (
        "\n".join(boot.lines)
    )


def test_a_retry_after_that_comes_instead_of_the_document_is_obeyed(boot: Boot) -> None:
    boot.service.answers[PATCH] = [SILENT]
    boot.service.answers[GET] = [Reply(503, {"Retry-After": "20"}, b""), DOCUMENT]
    start = boot.clock.now
    assert boot.run().tries == 2
    assert boot.clock.now - start >= 20.0


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Reply(200, {}, b"{}"), id="without a state"),
        pytest.param(Reply(200, {}, b'{"state_detail": null}'), id="with a null"),
    ],
)
def test_a_document_that_names_no_state_is_no_denial(boot: Boot, answer: Reply) -> None:
    boot.service.answers[PATCH] = [SILENT]
    boot.service.answers[GET] = [answer]
    assert not boot.run().confirmed
    assert boot.story.count(PATCH) == 1


def test_a_try_is_held_against_the_address_that_was_asked(boot: Boot) -> None:
    boot.service.answers[PATCH] = [BUSY, SILENT]
    boot.run()
    assert boot.service.attempts == 3  # two of the signal, one of the metadata


def test_the_document_does_not_put_a_confirmed_signal_in_doubt(boot: Boot) -> None:
    boot.service.answers[GET] = [Reply(200, {}, b'{"state_detail": "booting kernel"}')]
    assert boot.run().confirmed
    assert boot.story.count("write state") == 1


# The metadata.


@pytest.mark.parametrize(
    "failure",
    [
        Reply(404, {}, b""),
        Reply(403, {}, b""),
        Reply(200, {}, b"<html>"),
        Reply(200, {}, b"{", truncated=True),
        UnreachableError("no route"),
    ],
    ids=str,
)
def test_metadata_that_is_not_available_is_a_warning_after_a_minute(
    boot: Boot, failure: Reply | ScwSignalError
) -> None:
    boot.service.takes = 0.01
    boot.service.answers[GET] = [failure]
    assert boot.run().confirmed
    assert boot.bounds[1] == ("metadata", 60.0)
    assert boot.clock.now - 1000.0 < 60.0
    assert boot.lines[-1].startswith("metadata: not available: ")
    assert list(boot.files) == ["state"]
    assert boot.story[-2:] == ["close network", "narrow leave"]


def test_metadata_that_comes_late_is_stored(boot: Boot) -> None:
    boot.service.answers[GET] = [Reply(404, {}, b""), BUSY, DOCUMENT]
    boot.run()
    assert boot.files["metadata.json"] == BODY


# The run directory.


def test_a_run_directory_that_is_full_is_a_warning_and_the_boot_goes_on(
    boot: Boot,
) -> None:
    assert boot.store is not None
    boot.store.full_for = {"state", "metadata.json", "metadata.flat"}
    assert boot.run().confirmed
    warning = "cannot write: /var/run/scw_signal: No space left on device"
    assert boot.lines.count(warning) == 2  # of the state, and of the metadata
    assert not [line for line in boot.lines if "stored" in line]


def test_if_one_file_cannot_be_written_the_log_does_not_say_stored(
    boot: Boot,
) -> None:
    assert boot.store is not None
    boot.store.full_for = {"metadata.flat"}
    boot.run()
    assert boot.lines[-1].startswith("cannot write: ")
    assert "state" in boot.files


def test_without_a_run_directory_nothing_is_stored_and_nothing_more_logged(
    boot: Boot,
) -> None:
    boot.store = None
    assert boot.run().confirmed
    assert not [step for step in boot.story if step.startswith("write")]
    assert boot.lines[-1].startswith("signal: 'booted' acknowledged")


def test_without_a_run_directory_a_signal_is_still_confirmed(boot: Boot) -> None:
    boot.store = None
    boot.service.answers[PATCH] = [SILENT]
    assert boot.run().confirmed


# Whatever is wrong with a stage, the signal goes out.


def test_an_error_in_the_network_stage_is_logged_and_the_signal_goes_out(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_report: object) -> Endpoint:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(boot.network, "await_route", fail)
    assert boot.run().confirmed
    assert boot.lines[0].startswith("network: internal error")
    assert "OSError" in boot.lines[0]


def test_an_error_in_the_dns_stage_is_logged_and_the_signal_goes_out(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: object) -> bool:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(FakeResolver, "__call__", fail)
    assert boot.run().confirmed
    assert any("dns: " in line and "RuntimeError" in line for line in boot.lines)


def test_an_error_in_a_try_is_named_with_its_type(boot: Boot) -> None:
    boot.service.answers[PATCH] = [LookupError("in a library"), ACKNOWLEDGED]
    boot.run()
    (line,) = [
        line for line in boot.lines if line.startswith("signal 1: internal error")
    ]
    assert line.endswith(": LookupError: in a library")


def test_an_error_in_the_preparation_is_a_failed_try(boot: Boot) -> None:
    boot.prepare(hostname=True)
    boot.service.answers[GET] = [ValueError("a mistake"), DOCUMENT]
    assert boot.run().confirmed
    assert "hostname puffy" in boot.story


# What comes before the signal.

SCRIPT = b"#!/bin/sh\n"
USER_DATA_LIST = "GET /user_data?format=json"
USER_DATA = "GET /user_data/cloud-init"
WITH_ID = Reply(200, {}, b'{"hostname": "puffy", "id": "a-1"}')


@pytest.fixture
def prepared(boot: Boot) -> Boot:
    """Return a boot that sets the host name and runs a script."""
    boot.prepare(hostname=True, user_data=True)
    boot.service.answers[GET] = [WITH_ID]
    boot.service.answers[USER_DATA_LIST] = [
        Reply(200, {}, b'{"user_data": ["cloud-init"]}')
    ]
    boot.service.answers[USER_DATA] = [Reply(200, {}, SCRIPT)]
    return boot


def test_the_server_is_prepared_before_the_signal(prepared: Boot) -> None:
    prepared.run()
    assert prepared.story[:11] == [
        "route", "dns", GET, *METADATA_FILES, "hostname puffy", USER_DATA_LIST,
        USER_DATA, f"run {SCRIPT!r} for a-1", "close root", "narrow signal",
    ]  # fmt: skip


def test_the_metadata_is_in_the_run_directory_before_the_script_runs(
    prepared: Boot,
) -> None:
    prepared.run()
    script = prepared.story.index(f"run {SCRIPT!r} for a-1")
    assert all(prepared.story.index(write) < script for write in METADATA_FILES)


@pytest.mark.parametrize(
    "away",
    [Reply(503, {}, b""), Reply(403, {}, b""), UnreachableError("no route")],
    ids=str,
)
def test_what_a_failing_service_delayed_is_done_after_the_signal(
    prepared: Boot, away: Reply | ScwSignalError
) -> None:
    returned = prepared.service.answers.pop(GET)

    def exchange(request: Request, budget: float) -> tuple[Reply, Endpoint]:
        signalled = PATCH in prepared.story
        prepared.service.answers[GET] = returned if signalled else [away]
        prepared.clock.wait(0.01)
        return FakeService.exchange(prepared.service, request, budget)

    prepared.service.exchange = exchange  # type: ignore[method-assign]
    assert prepared.run().confirmed
    signalled = prepared.story.index(PATCH)
    assert signalled < prepared.story.index("hostname puffy")
    assert signalled < prepared.story.index(f"run {SCRIPT!r} for a-1")
    assert prepared.bounds[0] == ("prepare", 30.0)
    assert (
        "prepare: hostname and user-data left until after the signal" in prepared.lines
    )
    assert "narrow signal" not in prepared.story  # root's sockets come later
    assert prepared.story.index("close root") < prepared.story.index("narrow leave")


def test_user_data_that_could_not_be_read_is_run_after_the_signal(
    prepared: Boot,
) -> None:
    refusal = Reply(403, {}, b"")
    listed = prepared.service.answers[USER_DATA_LIST][0]
    prepared.service.answers[USER_DATA_LIST] = [refusal, listed]
    prepared.run()
    assert prepared.story.count("hostname puffy") == 1
    assert prepared.story.index(PATCH) < prepared.story.index(f"run {SCRIPT!r} for a-1")


def test_what_cannot_be_done_in_this_boot_is_an_error_in_the_log(
    prepared: Boot,
) -> None:
    prepared.service.takes = 0.01
    prepared.service.answers[USER_DATA_LIST] = [Reply(503, {}, b"")]
    assert prepared.run().confirmed
    assert "prepare: gave up; not done in this boot: user-data" in prepared.lines
    assert prepared.story[-1] in {"close network", "narrow leave", *METADATA_FILES}


def test_a_duty_that_root_cannot_do_is_a_warning_and_not_tried_again(
    prepared: Boot,
) -> None:
    prepared.root.failure = DutyError("hostname(1) failed")
    assert prepared.run().confirmed
    assert "hostname: hostname(1) failed" in prepared.lines
    assert prepared.story.count("hostname puffy") == 1


@pytest.mark.parametrize("value", ["null", "7", "[]", '""', "{}"])
def test_a_host_name_that_is_no_string_is_logged_and_changes_nothing(
    prepared: Boot, value: str
) -> None:
    body = f'{{"hostname": {value}, "id": "a-1"}}'.encode()
    prepared.service.answers[GET] = [Reply(200, {}, body)]
    prepared.run()
    assert not [step for step in prepared.story if step.startswith("hostname")]
    told = "hostname: the metadata has no usable hostname; nothing is changed"
    assert told in prepared.lines


@pytest.mark.parametrize("body", [b"{}", b'{"id": null}', b'{"id": 7}'])
def test_without_an_id_no_script_is_run_and_that_is_logged(
    prepared: Boot, body: bytes
) -> None:
    prepared.service.answers[GET] = [Reply(200, {}, body)]
    prepared.run()
    assert not [step for step in prepared.story if step.startswith("run")]
    told = "user-data: the metadata has no usable id; nothing is changed"
    assert told in prepared.lines


def test_user_data_that_is_no_script_is_a_warning(prepared: Boot) -> None:
    prepared.service.answers[USER_DATA] = [Reply(200, {}, b"#cloud-config\n")]
    prepared.run()
    assert not [step for step in prepared.story if step.startswith("run")]
    (told,) = [line for line in prepared.lines if line.startswith("user-data")]
    assert "cloud-config" in told


def test_without_user_data_there_is_none_to_run(prepared: Boot) -> None:
    prepared.service.answers[USER_DATA_LIST] = [Reply(200, {}, b'{"user_data": []}')]
    prepared.run()
    assert "user-data: there is none" in prepared.lines


# Patience.


class Told(NamedTuple):
    """What Patience did."""

    pauses: list[tuple[float, float]]
    reports: list[tuple[ScwSignalError, int, float]]


def patience(
    clock: FakeClock,
    told: Told | None = None,
    *,
    seconds: float = math.inf,
    insist: bool = False,
    unattended: bool = False,
    once: bool = False,
) -> Patience:
    told = told or Told([], [])

    def pause(seconds: float, floor: float) -> None:
        told.pauses.append((seconds, floor))
        clock.wait(seconds)

    return Patience(
        clock,
        seconds,
        pause,
        lambda *report: told.reports.append(report),
        insist=insist,
        unattended=unattended,
        once=once,
        chance=lambda: 1.0,
    )


def in_turn(outcomes: Iterable[str | BaseException]) -> Callable[[], str]:
    """Return an operation with these outcomes; one more call is a mistake."""
    outcomes = iter(outcomes)

    def operation() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return operation


def test_after_a_successful_first_try_there_is_no_other(clock: FakeClock) -> None:
    told = Told([], [])
    assert patience(clock, told).run(in_turn(["done"])) == ("done", 1)
    assert told == ([], [])


def test_each_failure_is_reported_and_followed_by_a_pause(clock: FakeClock) -> None:
    told = Told([], [])
    first, second = UnreachableError("1"), UnavailableError("2", after=2.0)
    assert patience(clock, told).run(in_turn([first, second, "done"])) == ("done", 3)
    assert told.reports == [(first, 1, 0.25), (second, 2, 2.5)]
    assert told.pauses == [(0.25, 0.03125), (2.5, 2.0625)]


@pytest.mark.parametrize("error", [UnreachableError("no"), RefusedError("403")])
@pytest.mark.parametrize("insist", [False, True])
def test_once_is_one_try_and_its_error(
    clock: FakeClock, error: ScwSignalError, *, insist: bool
) -> None:
    with pytest.raises(type(error)) as caught:
        patience(clock, once=True, insist=insist).run(in_turn([error]))
    assert caught.value is error


def test_a_refusal_ends_the_patience_of_a_person(clock: FakeClock) -> None:
    with pytest.raises(RefusedError):
        patience(clock).run(in_turn([RefusedError("403")]))
    with pytest.raises(RefusedError):
        patience(clock).run(in_turn([UnreachableError("no"), RefusedError("403")]))


def test_a_refusal_does_not_end_the_patience_of_the_agent(clock: FakeClock) -> None:
    told = Told([], [])
    refusal = RefusedError("403")
    insisting = patience(clock, told, insist=True)
    assert insisting.run(in_turn([refusal, refusal, "done"])) == ("done", 3)
    assert told.pauses == [(2.0, 0.25), (4.0, 0.5)]


def test_giving_up_names_the_last_failure_and_the_seconds(clock: FakeClock) -> None:
    def refuse() -> str:
        clock.wait(6.5)
        raise UnreachableError("no route")

    with pytest.raises(GaveUpError, match=r"^no route; gave up after 13\.2 s$"):
        patience(clock, seconds=14.0).run(refuse)


def test_a_last_try_that_the_limit_cuts_short_does_not_hide_the_reason(
    clock: FakeClock,
) -> None:
    def refuse() -> str:
        if clock.now - start > 4.5:
            clock.wait(5.0 - (clock.now - start))
            raise BrokenOffError("no answer in time")
        raise UnreachableError("no route")

    start = clock.now
    with pytest.raises(GaveUpError, match=r"^no route; gave up after 5 s$"):
        patience(clock, seconds=5.0).run(refuse)


@pytest.mark.parametrize("error", [ValueError("a mistake"), KeyboardInterrupt()])
def test_an_exception_that_is_no_failed_try_passes_through(
    clock: FakeClock, error: BaseException
) -> None:
    for outcomes in ([error], [UnreachableError("no"), error]):
        with pytest.raises(type(error)):
            patience(clock, insist=True).run(in_turn(outcomes))


@pytest.mark.parametrize("insist", [False, True])
def test_unattended_any_unexpected_error_is_a_failed_try(
    clock: FakeClock, *, insist: bool
) -> None:
    told = Told([], [])
    started = patience(clock, told, insist=insist, unattended=True)
    outcomes: list[str | BaseException]
    outcomes = [ValueError("a mistake"), MemoryError(), "done"]
    assert started.run(in_turn(outcomes)) == ("done", 3)
    assert [str(error) for error, _, _ in told.reports] == [
        bug(ValueError("a mistake")),
        bug(MemoryError()),
    ]


def test_unattended_a_stop_still_passes_through(clock: FakeClock) -> None:
    for outcomes in ([Stopped(15)], [UnreachableError("no"), Stopped(15)]):
        with pytest.raises(Stopped):
            patience(clock, insist=True, unattended=True).run(in_turn(outcomes))


def test_the_time_begins_when_the_patience_does(clock: FakeClock) -> None:
    started = patience(clock, seconds=10.0)
    assert started.remaining() == 10.0
    clock.wait(4.0)
    assert started.remaining() == 6.0
    clock.wait(10.0)
    assert started.remaining() == -4.0


def test_a_patience_without_bound_has_no_end(clock: FakeClock) -> None:
    started = patience(clock)
    clock.wait(1e9)
    assert started.remaining() == math.inf


# What else the commands use.


def test_a_state_is_signalled_and_the_receipt_says_how(boot: Boot) -> None:
    boot.service.answers[PATCH] = [BUSY, Reply(200, {}, b"STATE_DETAIL='my state'\n")]
    boot.service.endpoint = V6
    receipt = agent.signal(boot.service, "my state", patience(boot.clock))
    assert receipt == Receipt("my state", confirmed=True, endpoint=V6, tries=2)


KEYS = Reply(200, {}, b'{"user_data": ["role"]}')
LIST, READ = "GET /user_data?format=json", "GET /user_data/role"


def test_the_keys_of_user_data_are_asked_for_until_they_come(boot: Boot) -> None:
    boot.service.answers[LIST] = [BUSY, Reply(404, {}, b""), KEYS]
    assert agent.user_data_keys(boot.service, patience(boot.clock)) == ["role"]
    assert boot.story == [LIST] * 3


@pytest.mark.parametrize(
    ("method", "value", "body"),
    [("GET", None, b"\0\xff\n"), ("PATCH", b"db", b""), ("DELETE", None, b"")],
)
def test_user_data_is_asked_for_until_there_is_an_answer(
    boot: Boot, method: str, value: bytes | None, body: bytes
) -> None:
    line = f"{method} /user_data/role"
    boot.service.answers[line] = [BrokenOffError("lost"), BUSY, Reply(200, {}, body)]
    started = patience(boot.clock, seconds=10.0)
    assert agent.user_data(boot.service, started, method, "role", value) == body
    assert boot.story == [line] * 3
    assert boot.service.budgets == [10.0, 9.75, 9.25]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(404, {}, b""), NoSuchKeyError),
        (Reply(200, {}, b"x", truncated=True), RefusedError),
        (Reply(403, {}, b""), RefusedError),
        (NotRootError("only root"), NotRootError),
    ],
)
def test_user_data_is_asked_for_once_if_the_failure_will_last(
    boot: Boot, reply: Reply | ScwSignalError, error: type[ScwSignalError]
) -> None:
    boot.service.answers[READ] = [reply]
    with pytest.raises(error):
        agent.user_data(boot.service, patience(boot.clock), "GET", "role")
    assert boot.story == [READ]


def test_404_while_setting_is_not_there_yet(boot: Boot) -> None:
    line = "PATCH /user_data/role"
    boot.service.answers[line] = [Reply(404, {}, b""), Reply(204, {}, b"")]
    started = patience(boot.clock, seconds=10.0)
    assert agent.user_data(boot.service, started, "PATCH", "role", b"db") == b""
    assert boot.story == [line] * 2


@pytest.mark.parametrize("lost", [BrokenOffError("lost"), BUSY], ids=str)
def test_404_to_a_second_try_of_a_deletion_is_success(
    boot: Boot, lost: Reply | ScwSignalError
) -> None:
    boot.service.answers["DELETE /user_data/role"] = [lost, Reply(404, {}, b"")]
    started = patience(boot.clock, seconds=10.0)
    assert agent.user_data(boot.service, started, "DELETE", "role") == b""


def test_404_after_a_deletion_that_never_arrived_is_no_such_key(boot: Boot) -> None:
    boot.service.answers["DELETE /user_data/role"] = [
        UnreachableError("no route"), Reply(404, {}, b""),
    ]  # fmt: skip
    with pytest.raises(NoSuchKeyError):
        agent.user_data(boot.service, patience(boot.clock), "DELETE", "role")


def test_another_state_acknowledged_is_a_failed_try(boot: Boot) -> None:
    with pytest.raises(OtherStateError):
        agent.signal(boot.service, "ready", patience(boot.clock, once=True))


def test_the_document_is_fetched_as_served_and_parsed(boot: Boot) -> None:
    boot.service.answers[GET] = [BUSY, DOCUMENT]
    assert agent.fetch(boot.service, patience(boot.clock)) == (BODY, json.loads(BODY))
    assert boot.story == [GET, GET]


def test_the_budget_of_a_fetch_is_the_time_that_is_left(boot: Boot) -> None:
    boot.service.takes = 4.0
    boot.service.answers[GET] = [BUSY, DOCUMENT]
    agent.fetch(boot.service, patience(boot.clock, seconds=10.0))
    assert boot.service.budgets == [10.0, 5.75]


def test_asking_once_has_the_budget_that_it_is_given(boot: Boot) -> None:
    assert agent.ask(boot.service, 2.5).body == BODY
    assert boot.service.budgets == [2.5]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (BUSY, TryAgainError),
        (Reply(403, {}, b""), RefusedError),
        (Reply(200, {}, b"[]"), NonsenseError),
        (Reply(200, {}, BODY, truncated=True), NonsenseError),
    ],
)
def test_a_reply_that_is_no_document_is_an_error(
    boot: Boot, reply: Reply, error: type[ScwSignalError]
) -> None:
    boot.service.answers[GET] = [reply]
    with pytest.raises(error):
        agent.ask(boot.service, 1.0)


@pytest.mark.parametrize(
    ("document", "confirmed"),
    [
        ({"state_detail": "booted"}, True),
        ({"state_detail": "booting kernel"}, False),
        ({"state_detail": None}, False),
        ({}, False),
    ],
)
def test_a_document_confirms_the_state_that_it_names(
    document: dict[str, str | None], *, confirmed: bool
) -> None:
    assert agent.confirms(Metadata(b"", {**document}), "booted") is confirmed
