"""`make bench`: how fast the commands are, beside the alternatives, in one run.

Programs that are compared are run in turns, so that other load on the machine
affects them equally. Wall times are medians; where a wall time varies too much,
user-space instructions are counted with valgrind. Prints one table and writes
it, with a plot, beside this file. Needs root, for the network namespaces, and
an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import netns  # noqa: E402
from netns import GATEWAYS, HTTP, SERVICE, Lab, NameServer  # noqa: E402
from scw_signal.emulator import Emulator  # noqa: E402

if TYPE_CHECKING:
    import resource
    from collections.abc import Iterator, Sequence

BIN = Path(sys.executable).parent
SAMPLE = HERE.parent / "samples" / "conf-routed-ipv4.json"
TEXT = HERE.parent / "samples" / "conf-routed-ipv4.txt"
KEYS = (
    "HOSTNAME", "ZONE", "ID", "COMMERCIAL_TYPE", "PUBLIC_IP_ADDRESS", "NAME",
    "STATE_DETAIL", "TAGS_0",
)  # fmt: skip
TOOLS = ("ip", "nginx", "valgrind", "curl", "cc")


class Row(NamedTuple):
    """One line of the table; a goal limits a value, or the ratio of two."""

    what: str
    values: dict[str, float]
    unit: str
    goal: str = ""
    kept: bool | None = None


def main() -> int:
    """Measure everything; the exit status is 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few turns, rough figures")
    quick = parser.parse_args().quick
    missing = netns.missing() or next(
        (f"{tool} is not installed" for tool in TOOLS if not shutil.which(tool)), ""
    )
    if missing:
        print(f"bench: {missing}", file=sys.stderr)
        return 1
    turns = 3 if quick else 21
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.chmod(0o755)  # nginx gives up root
        rows = [
            *programs(work, turns),
            *instructions(1 if quick else 3),
            *routes(work, turns),
            *waiting(work, turns, 5 if quick else 60),
        ]
        report = f"{table(rows)}\n{network(work)}"
    print(report)
    if not quick:
        (HERE / "RESULTS.md").write_text(f"{heading()}\n{report}")
        (HERE / "results.svg").write_text(plot(rows))
    return 0 if all(row.kept is not False for row in rows) else 1


# Whole programs on loopback, against nginx


def programs(work: Path, turns: int) -> list[Row]:
    """Measure the wall time of signals, of live and of cached look-ups."""
    client = compiled(work, "client")
    with Nginx(work) as service:
        run_dir = work / "run"
        to = ("--url", service.url)
        cached: list[Path | str] = [BIN / "scw-metadata", "--cached"]
        cached += ["--run-dir", run_dir]
        subprocess.run([*cached, *to], check=True, capture_output=True)
        by_script = " ".join(f'"$0" {TEXT} {key};' for key in KEYS)
        by_c = " ".join(f'"$0" cached {TEXT} {key};' for key in KEYS)
        at: list[Path | str] = ["127.0.0.1", str(service.port)]
        patch = ["curl", "-sf", "-X", "PATCH", "-d", '{"state_detail": "booted"}']
        times = in_turns(
            turns,
            {
                "interpreter": [sys.executable, "-I", "-c", "pass"],
                "signal": [BIN / "scw-signal-state", *to, "booted"],
                "signal, script": ["sh", HERE / "signal.sh", service.url],
                "signal, loop": ["sh", HERE / "loop.sh", service.url],
                "signal, C": [client, "signal", *at],
                "signal, curl": [*patch, f"{service.url}/state"],
                "live": [BIN / "scw-metadata", *to, "HOSTNAME"],
                "live, script": ["sh", HERE / "live.sh", service.url, "HOSTNAME"],
                "live, C": [client, "live", *at, "HOSTNAME"],
                "live, curl": ["curl", "-sf", f"{service.url}/conf?format=json"],
                "cached": [*cached, "HOSTNAME"],
                "cached, script": ["sh", HERE / "cached.sh", TEXT, "HOSTNAME"],
                "cached, C": [client, "cached", TEXT, "HOSTNAME"],
                "8 keys": [*cached, *KEYS],
                "8 keys, script": ["sh", "-c", by_script, HERE / "cached.sh"],
                "8 keys, C": ["sh", "-c", by_c, client],
            },
        )
    bare = times["interpreter"]
    return [
        Row("bare interpreter", {"python3 -I -c pass": bare}, "ms"),
        Row(
            "signal, first try good",
            {
                "scw-signal-state": times["signal"],
                "shell and curl": times["signal, script"],
                "5 s loop": times["signal, loop"],
                "curl alone": times["signal, curl"],
                "C": times["signal, C"],
            },
            "ms",
            "at most 10 times the script",
            times["signal"] <= 10 * times["signal, script"],
        ),
        Row(
            "live metadata, one key",
            {
                "scw-metadata": times["live"],
                "shell and curl": times["live, script"],
                "curl alone": times["live, curl"],
                "C": times["live, C"],
            },
            "ms",
        ),
        Row(
            "cached metadata, one key",
            {
                "scw-metadata": times["cached"],
                "script": times["cached, script"],
                "C": times["cached, C"],
            },
            "ms",
            "at most 1.25 times the bare interpreter",
            times["cached"] <= 1.25 * bare,
        ),
        Row(
            "cached metadata, 8 keys",
            {
                "scw-metadata": times["8 keys"],
                "script, 8 calls": times["8 keys, script"],
                "C, 8 calls": times["8 keys, C"],
            },
            "ms",
            "at most half of the script's 8 calls",
            times["8 keys"] <= times["8 keys, script"] / 2,
        ),
    ]


def compiled(work: Path, name: str) -> Path:
    """Compile a program that lies beside this file."""
    program = work / name
    subprocess.run(["cc", "-O2", "-o", program, HERE / f"{name}.c"], check=True)
    return program


def in_turns(turns: int, commands: dict[str, list[Path | str]]) -> dict[str, float]:
    """Run each command once a turn; return the median wall times in ms."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    order = list(commands)
    for turn in range(turns + 1):
        random.shuffle(order)
        for name in order:
            start = time.perf_counter()
            done = subprocess.run(
                commands[name], stdout=subprocess.DEVNULL, check=False
            )
            if done.returncode:
                raise SystemExit(f"bench: {name} ended with status {done.returncode}")
            if turn:  # the first one warms the caches
                times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(measured) for name, measured in times.items()}


@final
class Nginx:
    """nginx as the service, on a free port of loopback."""

    def __init__(self, work: Path) -> None:
        """Take a directory to work in."""
        with Emulator() as probe:  # finds a free port, and frees it again
            self.port = int(probe.url.rpartition(":")[2])
        self.url = f"http://127.0.0.1:{self.port}"
        shutil.copy(SAMPLE, work / "conf.json")
        shutil.copy(TEXT, work / "conf.txt")
        temporary = "".join(
            f"{kind}_temp_path {work}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (work / "nginx.conf").write_text(
            f"pid {work}/pid; error_log {work}/error.log; worker_processes 1;"
            "events { worker_connections 64; }"
            f"http {{ access_log off; {temporary}"
            " map $arg_format $form { default txt; json json; }"
            f" server {{ listen 127.0.0.1:{self.port};"
            '  location = /state { return 200 "STATE_DETAIL=booted\\n"; }'
            f"  location = /conf {{ alias {work}/conf.$form; }} }} }}"
        )
        self._words = ["nginx", "-p", str(work), "-c", str(work / "nginx.conf")]

    def __enter__(self) -> Nginx:
        """Start it; it goes into the background once it listens."""
        subprocess.run(self._words, check=True, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        words = [*self._words, "-s", "quit"]
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)


# Instructions


def instructions(turns: int) -> list[Row]:
    """Count the user-space instructions of a signal, lazy and eager."""
    with Emulator() as service:
        words = ("--url", service.url, "booted")
        lazy, eager = (
            statistics.median(count([*program, *words]) for _ in range(turns))
            for program in (
                [BIN / "scw-signal-state"],
                [sys.executable, HERE / "eager.py"],
            )
        )
    return [
        Row(
            "signal, user-space instructions",
            {"scw-signal-state": lazy / 1e6, "eager imports": eager / 1e6},
            "million",
            "at most 0.75 of eager imports",
            lazy <= 0.75 * eager,
        )
    ]


def count(words: Sequence[Path | str]) -> int:
    """Return the instructions that a command runs."""
    valgrind = ("valgrind", "--tool=cachegrind", "--cachegrind-out-file=/dev/null")
    done = subprocess.run(
        [*valgrind, *words], capture_output=True, text=True, check=True
    )
    found = re.search(r"I +refs: +([\d,]+)", done.stderr)
    if found is None:
        raise SystemExit("bench: valgrind printed no count")
    return int(found[1].replace(",", ""))


# From route to acknowledgement, in network namespaces


def routes(work: Path, turns: int) -> list[Row]:
    """Measure from the default route's appearance to the acknowledgement.

    The addresses are the real ones. The route appears at a random moment of the
    loop's five seconds, as it does at a boot.
    """
    agent = (BIN / "scw-signald", "-d", "--run-dir", work / "routes")
    url = f"http://{SERVICE[4]}"
    programs: dict[str, tuple[Sequence[Path | str], str, float]] = {
        "without DNS": ((*agent, "--no-dns"), "waiting", 0.0),
        "with DNS": (agent, "waiting", 0.0),
        "loop": (("sh", HERE / "loop.sh", url), "", 5.0),
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    requests: dict[str, list[int]] = {name: [] for name in programs}
    with Lab(wired=False) as lab:
        lab.link(up=True)
        lab.address(4)
        with lab.router.entered():
            names = NameServer(GATEWAYS[4])
        with names:
            for _ in range(turns):
                for name, (words, ready, phase) in programs.items():
                    seconds, asked = one_route(lab, words, ready, phase)
                    times[name].append(seconds * 1000)
                    requests[name].append(asked)
    median = {name: statistics.median(measured) for name, measured in times.items()}
    worst = max(map(max, (requests["without DNS"], requests["with DNS"])))
    return [
        Row(
            "route to acknowledgement",
            {
                "scw-signald": median["without DNS"],
                "after DNS": median["with DNS"],
                "5 s loop": median["loop"],
            },
            "ms",
            "at most 20 ms",
            max(median["without DNS"], median["with DNS"]) <= 20,
        ),
        Row(
            "requests for it, at most",
            {"scw-signald": float(worst), "5 s loop": float(max(requests["loop"]))},
            "",
            "one",
            worst == 1,
        ),
    ]


def one_route(
    lab: Lab, words: Sequence[Path | str], ready: str, phase: float
) -> tuple[float, int]:
    """Add a route; return the seconds to the acknowledgement, and the requests."""
    with lab.service.entered():
        service = Emulator(host=SERVICE[4], port=HTTP)
    with service, started(lab, words) as process:
        if ready:
            await_line(process, ready)
        time.sleep(random.uniform(0.2, 0.2 + phase))  # noqa: S311 - no secret
        appeared = lab.route(4)
        await_line(process, "acknowledged by")
        seconds = time.monotonic() - appeared
        process.communicate()
        asked = sum(request.method == "PATCH" for request in service.requests)
    lab.unroute(4)
    return seconds, asked


@contextmanager
def started(lab: Lab, words: Sequence[Path | str]) -> Iterator[subprocess.Popen[str]]:
    """Start a program in the guest; end it afterwards, whatever happens."""
    with subprocess.Popen(
        lab.guest.command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # to end what a shell has started too
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def await_line(process: subprocess.Popen[str], text: str) -> None:
    """Read what a program prints up to a line with `text`."""
    assert process.stdout is not None
    if not any(text in line for line in process.stdout):
        raise SystemExit(f"bench: {process.args!r} ended without {text!r}")


def waiting(work: Path, turns: int, seconds: int) -> list[Row]:
    """Measure waiting without a network: processor time, and memory at its peak."""
    agent = (BIN / "scw-signald", "-d", "--run-dir", work / "waiting")
    loop = (compiled(work, "peak"), "sh", HERE / "loop.sh", f"http://{SERVICE[4]}")
    with Lab(wired=False) as lab, ExitStack() as stack:
        agents = [stack.enter_context(started(lab, agent)) for _ in range(turns)]
        for each in agents:
            await_line(each, "waiting")
        loops = [stack.enter_context(started(lab, loop)) for _ in range(turns)]
        before = [on_processor(each.pid) for each in agents]
        time.sleep(seconds)
        after = [on_processor(each.pid) for each in agents]
        memory = statistics.median(peak_memory(each.pid) for each in agents)
        usages, peaks = zip(*map(ended, loops), strict=True)
    spent = statistics.median(b - a for a, b in zip(before, after, strict=True))
    looped = statistics.median(u.ru_utime + u.ru_stime for u in usages) * 1000
    return [
        Row(
            f"processor time of {seconds} s without a network",
            {"scw-signald": spent, "5 s loop": looped},
            "ms",
            "at most 20 ms a minute",
            spent * 60 / seconds <= 20,
        ),
        Row(
            "memory meanwhile, at its peak",
            {"scw-signald": memory, "5 s loop": statistics.median(peaks)},
            "MiB",
        ),
    ]


def ended(process: subprocess.Popen[str]) -> tuple[resource.struct_rusage, float]:
    """End what peak.c runs; return its resource usage, and its peak size in MiB."""
    os.killpg(process.pid, signal.SIGTERM)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stdout is not None
    return usage, int(process.stdout.read()) / 1024


def on_processor(pid: int) -> float:
    """Return the milliseconds that all threads of a process have run."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def peak_memory(pid: int) -> float:
    """Return the largest resident size of a process so far, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


# The cases of tests/test_netns.py


def network(work: Path) -> str:
    """Run the tests on a real network; return what they noted, as a table."""
    notes = work / "network.xml"
    test = str(HERE.parent / "test_netns.py")
    words = [sys.executable, "-m", "pytest", "-q", test, f"--junit-xml={notes}"]
    done = subprocess.run(
        words, cwd=HERE.parent.parent, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"bench: {test} fails:\n{done.stdout}")
    lines = [
        "| on a real network | possible to acknowledged | requests | connections |",
        "|---|---|---|---|",
    ]
    for case in ET.parse(notes).iter("testcase"):  # noqa: S314 - pytest wrote it
        noted = {each.get("name"): each.get("value") for each in case.iter("property")}
        if noted:
            name = str(case.get("name")).removeprefix("test_").replace("_", " ")
            seconds = f"{noted['seconds']} s" if "seconds" in noted else "-"
            counts = f"{noted.get('requests', '-')} | {noted.get('connections', '-')}"
            lines.append(f"| {name} | {seconds} | {counts} |")
    return "\n".join(lines) + "\n"


# The report


def heading() -> str:
    """Return the machine, the versions and the date."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = {"urllib3", "tenacity", "scw-signal", "scw_signal"}
    packages = ", ".join(
        f"{package['name']} {package['version']}"
        for package in json.loads(versions)
        if package["name"] in wanted
    )
    today = dt.datetime.now(tz=dt.timezone.utc).date()
    return (
        f"# Measured by `make bench`\n\n"
        f"{today}, {cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores,"
        f" Linux {platform.release()}, Python {platform.python_version()},"
        f" {packages}. Medians, all in one run.\n"
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown."""
    lines = ["| what | measured | goal |", "|---|---|---|"]
    for row in rows:
        measured = ", ".join(
            f"{name}: {value:.{0 if value >= 100 else 1}f} {row.unit}".rstrip()
            for name, value in row.values.items()
        )
        verdict = {True: "kept", False: "**missed**", None: ""}[row.kept]
        goal = f"{row.goal}: {verdict}" if row.goal else ""
        lines.append(f"| {row.what} | {measured} | {goal} |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row]) -> str:
    """Return the wall times as bars, each row on a scale of its own."""
    lines: list[str] = []
    y = 10
    for row in rows:
        values = row.values
        if row.unit == "" or len(values) < 2:
            continue
        y += 22
        lines.append(f'<text x="10" y="{y}" font-weight="bold">{row.what}</text>')
        for at, (name, value) in enumerate(values.items()):
            y += 20
            width = max(2.0, 380 * value / max(values.values()))
            colour = "#c8a000" if at else "#00699e"
            shown = f"{value:.{0 if value >= 100 else 1}f} {row.unit}"
            lines.append(f'<text x="20" y="{y}">{name}</text>')
            lines.append(
                f'<rect x="160" y="{y - 12}" width="{width:.0f}" height="15"'
                f' rx="2" fill="{colour}"/>'
            )
            lines.append(f'<text x="{166 + width:.0f}" y="{y}">{shown}</text>')
        y += 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="680" height="{y + 16}"'
        ' font-family="sans-serif" font-size="13">'
        '<rect width="100%" height="100%" fill="#fff"/>' + "\n".join(lines) + "</svg>\n"
    )


if __name__ == "__main__":
    sys.exit(main())
