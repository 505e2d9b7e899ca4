"""The manuals: checked against the commands they describe, and by mandoc."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scw_signal import (
    agent,
    backoff,
    document,
    flat,
    render,
    sandbox,
    store,
    transport,
    wire,
)
from scw_signal.cli import (
    checkup,
    metadata,
    metadata_json,
    process,
    session,
    signal_state,
    signald,
    userdata,
)
from scw_signal.clock import Clock
from scw_signal.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scw_signal.cli.options import Command

    Format = Callable[..., tuple[int, str]]

ROOT = Path(__file__).resolve().parent.parent
DIRECTORY = ROOT / "packaging/man"
AGENT, BY_HAND, METADATA = "scw-signald.8", "scw-signal-state.8", "scw-metadata.1"
AS_JSON, USER_DATA = "scw-metadata-json.1", "scw-userdata.8"
COMMANDS = {
    AGENT: signald.COMMAND,
    BY_HAND: signal_state.COMMAND,
    METADATA: metadata.COMMAND,
    AS_JSON: metadata_json.COMMAND,
    USER_DATA: userdata.COMMAND,
}
SECTIONS = {
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "ENVIRONMENT",
    "FILES",
    "EXIT STATUS",
    "EXAMPLES",
    "SEE ALSO",
    "CAVEATS",
}
# Manuals of OpenBSD that ours refer to. Few of them exist on other systems.
OPENBSD = (
    "head.1", "hostname.1", "ksh.1", "logger.1", "pkg_add.1", "ps.1", "sh.1",
    "pledge.2", "unveil.2", "pf.4", "vio.4", "pf.conf.5", "dhcpleased.8", "slaacd.8",
    "getaddrinfo.3", "syslog.3", "resolv.conf.5",
    "acpibtn.4", "route.4", "hostname.if.5", "sshd_config.5",
    "syslog.conf.5", "daily.8", "disklabel.8", "fsck.8", "growfs.8", "mount.8",
    "rc.d.8", "rcctl.8",
    "resolvd.8", "route.8", "sshd.8", "sysctl.8", "syslogd.8",
)  # fmt: skip
COLUMNS, LINES = 80, 24

every_manual = pytest.mark.parametrize("page", COMMANDS)


def source(page: str) -> str:
    return (DIRECTORY / page).read_text()


def section(page: str, name: str) -> str:
    """Return the source between one heading and the next."""
    parts = re.split(r"^\.Sh (.+)\n", source(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]


def words(page: str) -> str:
    """Return the source on one line, so that phrases are found across its lines."""
    return " ".join(source(page).split("\n"))


def items(text: str) -> list[str]:
    """Return the names of the list entries in a piece of source."""
    return [
        item.removeprefix("Cm ")
        for item in re.findall(r"^\.It (.+)", text, flags=re.MULTILINE)
    ]


def displayed(page: str) -> list[str]:
    """Return the lines that a manual displays, and its literal quotes."""
    displays = re.findall(
        r"^\.Bd -literal.*\n((?:.*\n)+?)\.Ed", source(page), flags=re.MULTILINE
    )
    single = re.findall(r"^\.[DQ]l (.+)", source(page), flags=re.MULTILINE)
    return [line for display in displays for line in display.splitlines()] + single


def invocations(page: str) -> list[tuple[Command, list[str]]]:
    """Return each of our commands that a manual shows, and its arguments.

    The flags of the service are the arguments of the agent.
    """
    flags = "rcctl set scw_signal flags"
    commands = {command.name: command for command in COMMANDS.values()}
    commands[flags] = signald.COMMAND
    ours = "|".join(commands)
    found = []
    for line in displayed(page):
        typed = re.match(rf"(?:[$#] |\w+=\$\()?({ours})(?![\w-])([^|)]*)", line)
        if typed:
            found.append((commands[typed[1]], shlex.split(typed[2].rstrip(" ,."))))
    return found


@pytest.fixture(scope="session")
def mandoc(tmp_path_factory: pytest.TempPathFactory) -> Format:
    """Return a function that runs mandoc, where the manuals that ours name exist."""
    program = shutil.which("mandoc")
    if program is None:
        pytest.skip("there is no mandoc here")
    tree = tmp_path_factory.mktemp("man")
    for name in (*OPENBSD, *COMMANDS):
        place = tree / f"man{name[-1]}"
        place.mkdir(exist_ok=True)
        (place / name).touch()

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [program, *words],
            cwd=DIRECTORY,
            env={"MANPATH": str(tree)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout.decode()

    return run


# The options.


@every_manual
def test_the_option_list_has_the_options_of_help_and_no_others(page: str) -> None:
    listed = set()
    for item in items(section(page, "DESCRIPTION")):
        if item.startswith("Fl"):
            match = re.fullmatch(r"(?:Fl (\w) , )?Fl Fl ([\w-]+)(?: Ar (\w+))?", item)
            assert match, f"not how an option is listed here: {item}"
            listed.add(match.groups(""))
    options = COMMANDS[page].options
    assert listed == {(o.letter, o.name, o.metavar.lower()) for o in options}


@every_manual
def test_the_option_list_is_in_alphabetical_order(page: str) -> None:
    listed = [
        item.removeprefix("Fl ").removeprefix("Fl ").casefold()
        for item in items(section(page, "DESCRIPTION"))
        if item.startswith("Fl")
    ]
    assert listed == sorted(listed)


@every_manual
def test_the_synopsis_has_every_option_and_no_others(page: str) -> None:
    synopsis = section(page, "SYNOPSIS")
    named = re.findall(r"Fl Fl ([\w-]+)(?: Ar (\w+))?", synopsis)
    letters = "".join(re.findall(r"(?<!Fl )Fl (?!Fl )(\w+)", synopsis))
    options = COMMANDS[page].options
    assert set(letters) == {o.letter for o in options if o.letter}
    assert set(named) == {(o.name, o.metavar.lower()) for o in options if not o.letter}


@every_manual
def test_the_text_mentions_no_option_that_the_command_lacks(page: str) -> None:
    known = {o.name for o in COMMANDS[page].options}
    known |= {o.letter for o in COMMANDS[page].options}
    text = section(page, "DESCRIPTION") + section(page, "CAVEATS")
    for name in re.findall(r"(?:Fl )+([\w-]+)", text):
        assert name in known


@every_manual
def test_every_example_is_a_valid_command_line(page: str) -> None:
    examples = invocations(page)
    assert COMMANDS[page].name in {command.name for command, _ in examples}
    for command, line in examples:
        arguments = command.parse(line)
        for option in command.options:
            if option.metavar == "SECONDS":
                arguments.seconds(option.name, 0.0)
        for url in arguments.all("url"):
            wire.endpoint(url)
        if command is signald.COMMAND:
            assert not arguments.operands
        if command is signal_state.COMMAND:
            assert [wire.valid_state(state) for state in arguments.operands]


@pytest.mark.parametrize("page", sorted({*COMMANDS} - {AGENT}))
def test_a_command_has_the_common_options(page: str) -> None:
    options = {o.name: (o.letter, o.metavar) for o in COMMANDS[page].options}
    common = {
        "once": ("", ""),
        "quiet": ("q", ""),
        "verbose": ("v", ""),
        "timeout": ("", "SECONDS"),
        "url": ("", "URL"),
        "version": ("V", ""),
        "help": ("h", ""),
    }
    assert common.items() <= options.items()


@every_manual
def test_help_names_the_variables_and_every_default(page: str) -> None:
    lines = COMMANDS[page].help()
    variables = ["METADATA_IP", "METADATA_PORT"]
    if page == USER_DATA:
        variables.append("USERDATA_IP")
    defaults = {
        "url": [*variables, *(each.host for each in wire.endpoints([], {}))],
        "run-dir": [f"({store.RUN_DIRECTORY})"],
        "timeout": ["(30)" if page == BY_HAND else "(10)"],
        "prefix": [f"({render.PREFIX})"],
        "account": ["(root)"],
        "deadline": ["(0: forever)"],
        "dns-name": [f"({signald.DNS_NAME})"],
        "dns-timeout": [f"({signald.DNS_SECONDS:g}"],
        "max-age": [],  # without it, nothing stored is used
    }
    for option in COMMANDS[page].options:
        if option.metavar:
            assert all(said in option.help for said in defaults[option.name])
            assert option.help in " ".join(lines.split()) or "\n" in option.help


@every_manual
def test_help_fits_a_screen(page: str) -> None:
    lines = COMMANDS[page].help().splitlines()
    assert max(map(len, lines)) < COLUMNS
    assert len(lines) < LINES, "the prompt needs a line as well"


# What the text says, and what the code does.


@every_manual
def test_every_exit_status_is_documented(page: str) -> None:
    status = {process.OK, process.FAILED, process.USAGE}
    if page in {METADATA, AS_JSON, USER_DATA}:
        status.add(process.NO_SUCH_KEY)
    assert items(section(page, "EXIT STATUS")) == [str(n) for n in sorted(status)]


@every_manual
def test_the_addresses_and_variables_are_documented(page: str) -> None:
    defaults = wire.endpoints([], {})
    assert f"are {' and '.join(each.url for each in defaults)}." in words(page)
    variables = items(section(page, "ENVIRONMENT"))
    vendors = ["Ev USERDATA_IP"] if page == USER_DATA else []
    assert variables == ["Ev METADATA_IP", "Ev METADATA_PORT", *vendors]
    assert f"in place of {wire.PORT}." in words(page)


def test_every_file_that_the_agent_leaves_is_documented() -> None:
    files = {store.STATE_FILE, store.METADATA_JSON, store.METADATA_FLAT}
    told = re.findall(rf"^Pa {store.RUN_DIRECTORY}/(.+)", "\n".join(
        items(section(AGENT, "FILES"))
    ), flags=re.MULTILINE)  # fmt: skip
    assert told == sorted(files)


def test_every_line_of_the_state_file_is_documented() -> None:
    receipt = agent.Receipt("booted", True, wire.Endpoint("192.0.2.1"), 1)  # noqa: FBT003 - a field
    (state,) = agent._report(receipt, (0.0, 0.0, 0.0)).values()
    keys = [line.partition("=")[0] for line in state.decode().splitlines()]
    told = items(section(AGENT, "FILES"))
    assert [item for item in told if not item.startswith("Pa ")] == keys


class Silent:
    """A service that returns an empty document."""

    def exchange(self, *_: object) -> tuple[wire.Reply, wire.Endpoint]:
        return wire.Reply(200, {}, b"{}"), wire.Endpoint("127.0.0.1")


def test_every_check_is_documented(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        tools = checkup.Tools(
            system=checkup.SYSTEMS["openbsd"],
            endpoints=[wire.Endpoint("127.0.0.1", server.getsockname()[1])],
            service=lambda _: Silent(),  # type: ignore[arg-type,return-value]
            resolver=Resolver(Clock()),
            run=lambda _: None,
            directory=str(tmp_path),
            dns_name="localhost",
        )
        checks = [finding.check for finding in checkup.examine(tools)]
    text = section(AGENT, "DESCRIPTION")
    listed = text[text.index(".Ss Checks") : text.index(".Ss Privileges")]
    assert items(listed) == checks


def test_the_usual_keys_are_those_of_a_real_document_with_their_values() -> None:
    tree = document.parse((ROOT / "tests/samples/conf-routed-ipv4.json").read_bytes())
    values = dict(document.flatten(tree))
    rows = re.findall(r"^\.It ([A-Z]\w+) Ta (.+)", source(METADATA), flags=re.MULTILINE)
    assert len(rows) > 10
    for key, example in rows:
        value = values[key] or ""
        assert value == example or value.startswith(example.removesuffix("..."))


@pytest.mark.parametrize("place", ["README.md", "help", METADATA, AS_JSON])
def test_what_cached_does_is_described_in_the_same_words_everywhere(place: str) -> None:
    said = (
        "use what is stored; if nothing is stored, ask the service and store its answer"
    )
    text = {
        "README.md": (ROOT / "README.md").read_text(),
        "help": metadata.COMMAND.help(),
        METADATA: source(METADATA),
        AS_JSON: source(AS_JSON),
    }[place]
    assert said in " ".join(text.split()).replace("Use what is", "use what is")


def test_every_verdict_of_the_check_is_documented() -> None:
    named = [word for word, _ in checkup._advice(checkup.SYSTEMS["openbsd"]).values()]
    told = f"signalled, would-signal, {', '.join(named[:-1])} and {named[-1]};"
    assert told in words(AGENT)


def test_every_stage_of_the_promises_is_documented() -> None:
    privileges = section(AGENT, "DESCRIPTION").partition(".Ss Privileges")[2]
    told = re.findall(r"^\.Dq ([a-z ]+?)(?: ,)?$", privileges, flags=re.MULTILINE)
    told_of = [*sandbox.PROMISES.values(), sandbox.FILES, sandbox.RECEIVE]
    assert told[: len(told_of)] == told_of
    assert f".Dq {sandbox.PRIVILEGED} ." in source(AGENT)
    assert f"as the user {sandbox.USER}." in privileges


@pytest.mark.parametrize("page", [BY_HAND, METADATA, USER_DATA])
def test_the_promises_of_a_command_are_documented(page: str) -> None:
    assert f".Dq {sandbox.PROMISES['wait']} {sandbox.FILES} ." in source(page)


def spelled(number: float) -> str:
    """Return a number in the words of the manuals."""
    words = {1: "a second", 8: "an eighth", 60: "a minute", 3600: "an hour"}
    return words.get(int(number), str(number))


def numbers() -> Iterator[tuple[str, str]]:
    """Yield phrases of the manuals that have numbers and names of the code in them."""
    kilo = 1024
    connect, exchange = transport.CONNECT_SECONDS, transport.EXCHANGE_SECONDS
    transient = [str(status) for status in sorted(wire.TRANSIENT)]
    # Of Back-off and Stages.
    yield AGENT, f"within {backoff.START:g} seconds"
    yield AGENT, f"longer than {backoff.CAP:g} seconds"
    yield AGENT, f"failed for {spelled(backoff.LASTING)},"
    yield AGENT, f"longest delay is {backoff.LASTING_CAP:g} seconds"
    yield AGENT, f"is added, up to {backoff.RETRY_AFTER_CAP:g} seconds"
    yield AGENT, f"below {spelled(backoff.CUT_SHARE)} of the longest delay"
    for page in (BY_HAND, METADATA, USER_DATA):
        yield page, f"begins with {backoff.START_BY_HAND:g} seconds"
    yield AGENT, f"but at most {spelled(backoff.LAST_TRY)}."
    yield AGENT, f"has {connect:g} seconds to accept the connection"
    yield AGENT, f"look-up of a host name has {transport.RESOLVE_SECONDS:g} seconds"
    yield AGENT, f"and {exchange:g} seconds in all"
    for page in (BY_HAND, METADATA, USER_DATA):
        yield page, f"takes at most {session.TRY_SECONDS:g} seconds"
    yield AGENT, f"give up after {agent.METADATA_SECONDS:g} seconds"
    yield AGENT, f"was {', '.join(transient)} or 5xx"
    yield BY_HAND, f"but {', '.join(transient[:-1])} and {transient[-1]}"
    yield AGENT, f"{spelled(backoff.REPORT_FIRST)} to "
    yield AGENT, f" to {spelled(backoff.REPORT_CAP)}"
    # Of the options.
    yield AGENT, f"default is {signald.DNS_NAME}."
    yield AGENT, f"default is {signald.DNS_SECONDS:g}."
    yield BY_HAND, f"default is {signal_state.TIMEOUT_SECONDS:g};"
    yield METADATA, f"default is {metadata.TIMEOUT_SECONDS:g};"
    yield AS_JSON, f"default is {metadata.TIMEOUT_SECONDS:g}."
    yield USER_DATA, f"default is {userdata.TIMEOUT_SECONDS:g};"
    yield METADATA, f"default is .Ql {render.PREFIX} ."
    yield AGENT, f"default is .Pa {store.RUN_DIRECTORY} ."
    yield METADATA, f"default is .Pa {store.RUN_DIRECTORY} ."
    # Of what is checked, and of the bounds.
    yield AGENT, f"longer than {checkup.CHECK_SECONDS:g} seconds"
    yield AGENT, f"within {spelled(checkup.CLOCK_SECONDS)} of the service"
    yield BY_HAND, f"1 to {wire.STATE_LENGTH} printable"
    yield USER_DATA, f"1 to {wire.KEY_LENGTH} printable"
    yield USER_DATA, f"at most {wire.USER_DATA_LIMIT} bytes"
    yield USER_DATA, f"but {', '.join(transient[1:-1])} and {transient[-1]}, a 3xx"
    ports = transport.RESERVED_PORTS
    yield USER_DATA, f"from {ports[0]} to {ports[-1]} at random"
    yield AGENT, f"{wire.ACKNOWLEDGEMENT_LIMIT // kilo} KB"
    yield AGENT, f"{wire.DOCUMENT_LIMIT // kilo} KB"
    yield METADATA, f"more than {wire.DOCUMENT_LIMIT // kilo} KB"
    yield METADATA, f"{document.MAX_NODES:,} values"
    yield METADATA, f"{document.MAX_DEPTH} levels"
    yield METADATA, f"{document.MAX_KEY} characters"
    yield METADATA, f".Dl {flat.HEADER.strip()} "


@pytest.mark.parametrize(("page", "phrase"), list(numbers()))
def test_a_number_in_a_manual_is_that_of_the_code(page: str, phrase: str) -> None:
    assert phrase in words(page)


def messages() -> Iterator[str]:
    """Yield a pattern for each text in the code that could be a message."""
    for module in (ROOT / "scw_signal").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value if isinstance(part, ast.Constant) else 0
                     for part in parts]  # fmt: skip
            said = "".join(text for text in texts if isinstance(text, str))
            if len(re.sub(r"\W", "", said)) >= len("isthere"):
                yield "".join(
                    re.escape(text) if isinstance(text, str) else ".+" for text in texts
                )


@pytest.mark.parametrize("page", [AGENT, BY_HAND, USER_DATA])
def test_every_diagnostic_is_a_message_of_the_code(page: str) -> None:
    code = list(messages())
    for item in items(section(page, "DIAGNOSTICS")):
        message = item.strip('"')
        assert any(re.fullmatch(pattern, message) for pattern in code), message


def test_the_checks_in_the_example_are_as_they_are_printed() -> None:
    lines = [line for line in displayed(AGENT) if re.match("ok|warn|FAIL", line)]
    code = list(messages())
    for line in lines:
        outcome, check, text = line.split(maxsplit=2)
        assert line == f"{outcome:<5}{check:<9}{text}"
        assert any(re.fullmatch(pattern, text) for pattern in code), text
    assert lines


# The form.


@every_manual
def test_a_manual_has_the_usual_sections(page: str) -> None:
    headings = set(re.findall(r"^\.Sh (.+)", source(page), flags=re.MULTILINE))
    assert headings >= SECTIONS


@every_manual
def test_mandoc_finds_no_fault(mandoc: Format, page: str) -> None:
    assert mandoc("-Tlint", "-Wstyle", page) == (0, "")


@every_manual
def test_a_manual_fits_a_terminal(mandoc: Format, page: str) -> None:
    status, text = mandoc("-Tascii", "-Owidth=79", page)
    assert status == 0
    assert max(map(len, re.sub(".\b", "", text).splitlines())) < COLUMNS


@pytest.mark.usefixtures("commands")
@every_manual
def test_the_wheel_puts_a_manual_where_man_looks(page: str) -> None:
    installed = Path(sys.prefix) / "share/man" / f"man{page[-1]}" / page
    assert installed.read_bytes() == (DIRECTORY / page).read_bytes()
