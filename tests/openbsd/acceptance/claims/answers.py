"""What the service may answer, and what the agent does then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..claim import add_claim, claim, expect

if TYPE_CHECKING:
    from ..claim import Check
    from ..lab import Lab

FIRST_DELAY = 2 * 2 / 3  # seconds; the shortest pause after the first failure
SLACK = 0.2  # seconds between the service's clock and this one


def _second_try(lab: Lab, fault: str, logged: str, pause: float) -> None:
    """Let the first signal fail; the second is accepted, after a pause."""
    service = lab.faulty(fault)
    lab.system.connect(4)
    agent = lab.agent("--no-dns")
    failed = agent.line(f"signal: .*{logged}.* \\(try 1; the next in ").moment
    taken = service.taken().moment
    agent.signalled()
    expect(taken - failed > pause - SLACK, f"the pause was {taken - failed:.3f} s")
    expect("CONFIRMED=True\n" in lab.state(), lab.state())
    expect("TRIES=2\n" in lab.state(), lab.state())


def _tried_again(fault: str, logged: str, pause: float = FIRST_DELAY) -> Check:
    return lambda lab: _second_try(lab, fault, logged, pause)


for name, says, check in (
    ("not_found", "404 is a failed try", _tried_again("state/404:1", "404")),
    ("unavailable", "503 is a failed try", _tried_again("state/503:1", "503")),
    (
        "too_many",
        "429 is a failed try, and its Retry-After is added to the pause",
        _tried_again("state/429-after=1:1", "429", 1 + FIRST_DELAY),
    ),
    (
        "reset",
        "a connection that is reset is a failed try",
        _tried_again("state/reset:1", "reset|broke off"),
    ),
    (
        "web_page",
        "a web page is no acknowledgement, but a failed try",
        _tried_again("state/html:1", "web page"),
    ),
    (
        "wrong_ack",
        "an acknowledgement of another state is a failed try",
        _tried_again("state/wrong-ack:1", "not 'booted'"),
    ),
):
    add_claim(name, says, check)


@claim("after an empty acknowledgement, /conf confirms the signal")
def empty_ack(lab: Lab) -> None:
    service = lab.faulty("state/empty-ack:1")
    lab.system.connect(4)
    lab.agent("--no-dns").signalled()
    expect("CONFIRMED=True\nURL=" in lab.state(), lab.state())
    expect(len(service.signals()) == 1, "it signalled more than once")
    expect(service.lines("GET /conf"), "it did not look")


@claim("a connection that is refused is a failed try, and the signal goes out later")
def refused(lab: Lab) -> None:
    lab.system.connect(4)
    agent = lab.agent("--no-dns")
    agent.line("signal: .*Connection refused.*\\(try 1; the next in ")
    lab.emulator()
    agent.signalled()


@claim("a silent service is given up when the time is up, with status 1")
def silence(lab: Lab) -> None:
    service = lab.faulty("state/hang")
    lab.system.connect(4)
    agent = lab.agent("--no-dns", "--deadline", "3")
    begun = service.line("PATCH /state -> - fault=hang").moment
    gave_up = agent.line("gave up after 3").moment
    status = agent.end()
    expect(status == 1, f"the agent ended with status {status}")
    expect(gave_up - begun < 3 + 1, f"it took {gave_up - begun:.3f} s")
    expect(not (lab.run_directory / "state").exists(), "it left a state behind")
