"""Hostile input: metadata, replies and command lines that are made to do harm.

Tenants can put anything into the name of a server or into a tag, and anyone who can
answer for the service's address can send anything.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from raw import RawService, reply

from installed import BIN, ENVIRONMENT, PATIENCE, Result, run, shown
from scw_signal import document, render
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("commands")

STATE, METADATA, AGENT = "scw-signal-state", "scw-metadata", "scw-signald"
SHELLS = ("mksh", "dash", "bash", "ksh93")
BATCH = 50  # documents that one shell reads
DOCUMENTS = 250  # for each shell, or when soaking:
MANY_DOCUMENTS = 25_000

# What a document contains


class Metadata(NamedTuple):
    """A document, and the variables that a shell should get from it."""

    body: bytes
    variables: dict[str, str]


FRAGMENTS = (
    "$(touch canary)", "`touch canary`", "';touch canary;'", '";touch canary;"',
    "'\ntouch canary\n'", "\\';touch canary;\\'", "|touch canary", "&touch canary&",
    ">canary", "<(touch canary)", "$((a[$(touch canary)]))", "${x:=$(touch canary)}",
    "x[$(touch canary)]", "\ntouch canary\n", "\r\n", "\\", "\\\n", "'", "''", '"',
    "'\"'\"'", "'\\''", "$", "`", "$HOME", "${PATH}", "~", "*", "?", "[a-z]", "!!", "#",
    "=", " ", "\t", "\n", "-n", "--", "%s", "\x01", "\x04", "\x07", "\x1b[2J", "\x7f",
    "\x80", "\x9b", "\xa0", "\xff", "\u202e", "\u2028", "\ufeff", "\ufffd",
    "\U0001f421", "EOF", "SCW_A=1", "readonly", "unset PATH", "exit 1", "a", "Z", "0",
    "x" * 300,
)  # fmt: skip
UNFIT = ("\0", "\ud800", "\udcff")  # for a shell or for UTF-8
NAMES = (
    "a", "B", "c_d", "0", "name", "tags", "PATH", "IFS", "PS4", "ENV", "HOME", "RANDOM",
    "SECONDS", "UID", "LD_PRELOAD", "_", "", "a b", "a-b", "a=b", "a.b",
    "a;touch canary", "$(touch canary)", "a[$(touch canary)]", "a\ntouch canary\n",
    "\xe9", "\u0131", "'", "\ud800", "\0", "a+", "*",
)  # fmt: skip


def hostile(seed: str, top: str = "") -> Metadata:
    """Make up a document; the names at its top all begin with `top`."""
    source = random.Random(seed)  # noqa: S311 - the same in each run
    tree = {
        top + source.choice(NAMES): value(source, 1)
        for _ in range(source.randint(1, 12))
    }
    body = json.dumps(tree, ensure_ascii=bool(source.getrandbits(1)))
    try:
        encoded = body.encode()
    except UnicodeEncodeError:
        encoded = json.dumps(tree).encode()
    variables: dict[str, str] = {}
    lay_flat(variables, "", json.loads(encoded))
    return Metadata(encoded, variables)


def value(source: random.Random, depth: int) -> Any:
    """Make up a value."""
    kind = source.random()
    if depth < 4 and kind < 0.15:
        return [value(source, depth + 1) for _ in range(source.randint(0, 4))]
    if depth < 4 and kind < 0.3:
        return {
            source.choice(NAMES): value(source, depth + 1)
            for _ in range(source.randint(0, 4))
        }
    if kind < 0.4:
        return source.choice([None, True, False, 0, -1, 10**30, 1.5, -1e-7])
    pool = FRAGMENTS if kind < 0.97 else UNFIT + FRAGMENTS
    return "".join(source.choices(pool, k=source.randint(0, 6)))


def lay_flat(variables: dict[str, str], name: str, node: Any) -> None:
    """Note what a shell should get for a value, as the test itself reads the form."""
    children: list[tuple[str, Any]] = []
    text = "" if node is None else str(node)
    if isinstance(node, dict):
        children = list(node.items())
        text = " ".join(spelt(key) for key in node)
    elif isinstance(node, list):
        children = [(str(at), each) for at, each in enumerate(node)]
        text = str(len(node))
    if name:
        variables.setdefault(name, re.sub("[\ud800-\udfff]", "\ufffd", text))
    for key, child in children:
        if name or key:
            lay_flat(variables, f"{name}_{spelt(key)}" if name else spelt(key), child)


def spelt(key: str) -> str:
    raised = re.sub("[a-z]", lambda letter: letter[0].upper(), key)
    return re.sub("[\ud800-\udfff]", "\ufffd", raised).replace(".", "_")


def for_shells(variables: dict[str, str], prefix: str) -> dict[str, str]:
    """Return the variables that a shell can hold."""
    return {
        prefix + name: text
        for name, text in variables.items()
        if re.fullmatch("[A-Z_][A-Z0-9_]*", prefix + name) and "\0" not in text
    }


# What a shell reads

READ = {".": ". ./{file}", "eval": 'eval "$(cat {file})"'}
# What a shell changes by itself.
VOLATILE = re.compile(
    rb"(_|_AST_FEATURES|LINENO|S?RANDOM|SECONDS|EPOCH\w+|BASH\w+|PIPESTATUS\S*)="
)


@pytest.fixture(params=SHELLS, scope="module")
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    return name


def read_all(
    shell: str, room: Path, texts: Sequence[bytes], wanted: Sequence[dict[str, str]]
) -> None:
    """Let a shell read each text in both ways; compare its variables to `wanted`."""
    for at, text in enumerate(texts):
        (room / f"{at}.env").write_bytes(text)
    before = sorted(room.iterdir())
    script = ["(set; printf '\\0')"]
    for at, variables in enumerate(wanted):
        names = " ".join(f'"${{{name}-unset}}"' for name in variables)
        for way in READ.values():
            script += [
                f"({way.format(file=f'{at}.env')}",
                f"printf '%s\\0' {names}",
                f"unset {' '.join(variables)}" if variables else ":",
                "set; printf '\\0')",
            ]
    done = subprocess.run(
        [shell],
        input="\n".join(script).encode(),
        cwd=room,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(room.iterdir()) == before, "something ran"
    printed = iter(done.stdout.split(b"\0"))
    untouched = steady(next(printed))
    for variables, _ in itertools.product(wanted, READ):
        count = max(1, len(variables))  # printf prints once even without arguments
        found = [text.decode() for text in itertools.islice(printed, count)]
        assert found == (list(variables.values()) or [""])
        assert steady(next(printed)) == untouched, "another variable has changed"


def steady(variables: bytes) -> list[bytes]:
    return [line for line in variables.splitlines() if not VOLATILE.match(line)]


def batches(soaking: bool) -> Iterator[range]:  # noqa: FBT001 - a fixture's value
    count = MANY_DOCUMENTS if soaking else DOCUMENTS
    for start in range(0, count, BATCH):
        yield range(start, start + BATCH)


def test_a_shell_has_every_value_of_any_document_and_runs_none(
    shell: str, tmp_path: Path, *, soaking: bool
) -> None:
    for batch in batches(soaking):
        made = [hostile(f"{shell} {number}") for number in batch]
        texts = [
            render.shell(document.flatten(document.parse(each.body))) for each in made
        ]
        wanted = [for_shells(each.variables, "SCW_") for each in made]
        read_all(shell, tmp_path, [text.encode() for text in texts], wanted)


def test_a_shell_has_every_value_of_the_text_form_where_the_names_are_harmless(
    shell: str, tmp_path: Path, *, soaking: bool
) -> None:
    for batch in batches(soaking):
        made = [hostile(f"text {shell} {number}", top="my_") for number in batch]
        texts = [
            render.text(document.flatten(document.parse(each.body))) for each in made
        ]
        wanted = [for_shells(each.variables, "") for each in made]
        read_all(shell, tmp_path, [text.encode() for text in texts], wanted)


class Boot(NamedTuple):
    """What a boot left behind, and what a shell should get from it."""

    url: str
    directory: Path
    variables: dict[str, str]


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boot]:
    """Boot a server with the documents of a hundred tenants in one."""
    directory = tmp_path_factory.mktemp("boot")
    tenants = [json.loads(hostile(f"boot {number}").body) for number in range(100)]
    body = json.dumps({f"my_{at}": tenant for at, tenant in enumerate(tenants)})
    variables: dict[str, str] = {}
    lay_flat(variables, "", json.loads(body))
    with RawService(document=reply(body.encode())) as service:
        words = ("-d", "--no-dns", "--url", service.url, "--run-dir", str(directory))
        assert run(AGENT, *words).status == 0
        yield Boot(service.url, directory, variables)


def test_stored_values_are_quoted_like_those_from_the_service(boot: Boot) -> None:
    cached = ("--cached", "--run-dir", str(boot.directory))
    assert output("--sh", *cached) == output("--sh", "--url", boot.url)


def output(*words: str) -> bytes:
    """Return what scw-metadata prints."""
    return subprocess.run(
        [BIN / METADATA, *words],
        env=ENVIRONMENT,
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    ).stdout


@pytest.mark.parametrize("form", ["--sh", "--cached --sh", "text"])
def test_a_shell_has_what_the_installed_commands_print(
    shell: str, boot: Boot, tmp_path: Path, form: str
) -> None:
    cached = ("--cached", "--run-dir", str(boot.directory))
    texts: dict[str, Callable[[], bytes]] = {
        "--sh": lambda: output("--sh", "--url", boot.url),
        "--cached --sh": lambda: output("--sh", *cached),
        "text": lambda: output("--url", boot.url),
    }
    wanted = for_shells(boot.variables, "" if form == "text" else "SCW_")
    assert len(wanted) > 500
    read_all(shell, tmp_path, [texts[form]()], [wanted])


# Texts that are not documents, and documents that only look wrong

DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def ask(body: bytes, *words: str) -> Result:
    """Ask a service for its document, once."""
    with RawService(document=reply(body)) as service:
        return run(METADATA, "--timeout", "1", "--url", service.url, *words)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b'{"a":"%s"}' % (b"x" * 10**7), "larger than", id="10 MB"),
        pytest.param(b" " * 10**7 + b"{}", "larger than", id="10 MB of blanks"),
        pytest.param(b'{"a":[%s0]}' % (b"0," * 60_000), "more than", id="many values"),
        pytest.param(DEEP, "more than 20000 values", id="200,000 deep"),
        pytest.param(DEEP[:15_000], "nested too deep", id="deep, and cut off"),
        pytest.param(
            b'{"%s":1}' % (b"k" * 500_000), "keys of more than", id="a long key"
        ),
        pytest.param(b'{"a":"\xff"}', "not UTF-8", id="invalid UTF-8"),
        pytest.param('{"a":1}'.encode("utf-16"), "not UTF-8", id="UTF-16"),
        pytest.param(b'{"a":"\0"}', "not JSON", id="raw NUL"),
        pytest.param(b'{"a":"\x1b[2J"}', "not JSON", id="raw escape"),
        pytest.param(b'{"a":NaN}', "not JSON", id="NaN"),
        pytest.param(b'{"a":%s}' % (b"9" * 500_000), "not JSON", id="many digits"),
        pytest.param(b'{"a":1}{"a":2}', "not JSON", id="two documents"),
        pytest.param(b"\x1f\x8b\x08\0", "not UTF-8", id="compressed"),
        pytest.param(b'["a"]', "not an object", id="a list"),
        pytest.param(b"", "not JSON", id="nothing"),
    ],
)
def test_what_is_no_document_is_one_line_and_status_1(body: bytes, reason: str) -> None:
    status, out, err = ask(body)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("scw-metadata: the document ")
    assert reason in err


@pytest.mark.parametrize(
    ("body", "out"),
    [
        pytest.param(b"{}", "", id="empty"),
        pytest.param(b'{"a":1,"a":2}', "A=2\n", id="a key twice"),
        pytest.param(b'{"a.b":1,"a_b":2}', "A_B=1\n", id="two keys of one name"),
        pytest.param(b'{"a":"\\ud800"}', "A='\ufffd'\n", id="half a surrogate pair"),
        pytest.param(b'{"a":"x\\u0000","b":1}', "B=1\n", id="NUL"),
        pytest.param(b'{"a;id":1,"b":1}', "B=1\n", id="a key that is no name"),
        pytest.param(b'{"public_ip":[7]}', "PUBLIC_IP=1\nPUBLIC_IP_0=7\n", id="list"),
        pytest.param(b'{"hostname":{"":{}}}', "HOSTNAME=''\nHOSTNAME_=''\n", id="dict"),
        pytest.param(b'{"tags":null,"zone":true}', "TAGS=\nZONE=True\n", id="null"),
        pytest.param(b'{"a":%s}' % (b"[" * 60 + b"]" * 60), None, id="60 deep"),
    ],
)
def test_what_is_a_document_is_printed(body: bytes, out: str | None) -> None:
    found = ask(body)
    assert (found.status, found.err) == (0, "")
    assert out in {found.out, None}


def test_a_value_that_no_shell_can_hold_is_not_changed() -> None:
    body = b'{"a":"x\\u0000y"}'
    assert ask(body, "a") == (0, "x\0y\n", "")
    assert ask(body, "--sh", "a") == (
        1, "", "scw-metadata: a shell cannot hold this name or value: A\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    "wrong", ["null", "7", "true", '""', "[]", "{}", '["\\u001b"]']
)
def test_wrong_types_everywhere_do_not_keep_the_check_up_from_its_verdict(
    wrong: Any,
) -> None:
    names = ("hostname", "commercial_type", "zone", "location", "state_detail")
    body = json.dumps(dict.fromkeys(names, wrong)).encode()
    with RawService(document=reply(body)) as service:
        words = ("--url", service.url, "--dns-name", "localhost")
        status, out, err = run(AGENT, "-n", *words)
    assert (status, err) == (0, "")
    assert "the signal would go out" in out.splitlines()[-1].lower()


# Terminals

ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202egnp.exe\u2066\u200f\x7f\ud800"
# What scw-signal-state itself does on a terminal, to rewrite its line.
REWRITE = re.compile(r"\r[^\r\n\x1b]*\x1b\[K")


def harmless(sent: str) -> bool:
    """Tell whether a terminal would only show lines."""
    lines = REWRITE.sub("", sent).replace("\r\n", "\n")
    return all(char.isprintable() or char in "\n\t" for char in lines)


TREE = {
    "hostname": ESCAPES, "commercial_type": f"DEV1{ESCAPES}", "zone": ESCAPES,
    "state_detail": ESCAPES, "tags": [ESCAPES, {ESCAPES: ESCAPES}], f"ho{ESCAPES}st": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile_url() -> Iterator[str]:
    body = json.dumps(TREE).encode()
    with RawService(signal=reply(b"OK"), document=reply(body)) as service:
        yield service.url


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([METADATA], id="text"),
        pytest.param([METADATA, "--sh"], id="sh"),
        pytest.param([METADATA, "--json"], id="json"),
        pytest.param([METADATA, "hostname", "tags.0"], id="values"),
        pytest.param([METADATA, f"ho{ESCAPES[:-1]}s"], id="a key that is near"),
        pytest.param(
            [AGENT, "-d", "-v", "--no-dns", "--deadline", "1"], id="the agent"
        ),
        pytest.param([AGENT, "-n", "--dns-name", "localhost"], id="check-up"),
        pytest.param([AGENT, "-n", "--json", "--dns-name", "x"], id="its JSON"),
    ],
)
def test_nothing_in_a_document_is_obeyed_by_a_terminal(
    words: list[str], hostile_url: str, tmp_path: Path
) -> None:
    place = () if words[0] == METADATA else ("--run-dir", str(tmp_path))
    sent = shown(*words, "--url", hostile_url, *place)
    assert re.search(r"\\x1b|\\u001b", sent), "nothing of it was shown"
    assert harmless(sent)


def test_nothing_in_the_cache_is_obeyed_by_a_terminal(
    hostile_url: str, tmp_path: Path
) -> None:
    words = ("--cached", "--run-dir", str(tmp_path), "--url", hostile_url)
    for form in ((), ("--sh",), ("--json",), ("hostname",)):
        sent = shown(METADATA, *words, *form)
        assert re.search(r"\\x1b|\\u001b", sent), "nothing of it was shown"
        assert harmless(sent)


RAW = ESCAPES.encode(errors="replace")
ACKNOWLEDGEMENT = b"STATE_DETAIL='" + RAW + b"'\n"


@pytest.mark.parametrize(
    "signal",
    [
        pytest.param(reply(ACKNOWLEDGEMENT), id="another state"),
        pytest.param(
            reply(json.dumps({"state_detail": ESCAPES}).encode()), id="in JSON"
        ),
        pytest.param(reply(RAW), id="a strange body"),
        pytest.param(reply(b"", status=b"503 " + RAW[:7]), id="a status"),
        pytest.param(reply(b"", status=b"403 " + RAW[:7]), id="a refusal"),
        pytest.param(
            reply(b"", b"Location: " + RAW[:7], status=b"302 Found"), id="a redirect"
        ),
        pytest.param(
            reply(b"", b"Retry-After: " + RAW[:7], status=b"429 No"), id="Retry-After"
        ),
        pytest.param(reply(b"", RAW + b": " + RAW), id="a header"),
        pytest.param(RAW, id="no HTTP"),
        pytest.param(b"HTTP/1.1 " + RAW + b"\r\n\r\n", id="no status"),
    ],
)
def test_nothing_in_a_reply_is_obeyed_by_a_terminal(signal: bytes) -> None:
    with RawService(signal=signal) as service:
        words = (STATE, "--timeout", "1.2", "--url", service.url, "booted")
        assert harmless(shown(*words))
        assert harmless(shown(*words, "-v", "--once"))


# Command lines

# With its option, nearly the longest word that Linux takes.
LONG = "x" * (128 * 1024 - 64)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param([STATE, LONG], 2, id="a state"),
        pytest.param([STATE, "booted", LONG], 2, id="two states"),
        pytest.param([STATE, f"--{LONG}", "booted"], 2, id="an option"),
        pytest.param([STATE, f"-{LONG}", "booted"], 2, id="letters"),
        pytest.param([STATE, "-" + "q" * len(LONG), LONG], 2, id="one letter"),
        pytest.param([STATE, f"--timeout={LONG}", "booted"], 2, id="no seconds"),
        pytest.param([STATE, f"--timeout={'9' * 99_999}", "booted"], 2, id="seconds"),
        pytest.param([STATE, f"--url=http://[{':' * 99_999}]", "x"], 2, id="colons"),
        pytest.param([STATE, f"--url=http://h:{'9' * 99_999}", "x"], 2, id="a port"),
        pytest.param([METADATA, f"--prefix={LONG}", "--sh"], 2, id="a bad prefix"),
        pytest.param([METADATA, f"--run-dir={LONG}", "a"], 1, id="a directory unused"),
        pytest.param([METADATA, "--cached", f"--run-dir={LONG}"], 1, id="a directory"),
        pytest.param([AGENT, LONG], 2, id="an operand"),
        pytest.param([AGENT, f"--dns-name={LONG}"], 2, id="a name"),
        pytest.param([AGENT, f"--deadline=-{LONG}"], 2, id="a deadline"),
        pytest.param(
            [AGENT, "-d", "--no-dns", "--deadline=1", f"--run-dir={LONG}"],
            1,
            id="its directory",
        ),
    ],
)
def test_a_word_of_absurd_length_is_reported_in_a_short_line(
    words: list[str], status: int
) -> None:
    options = ("--timeout=1",) if words[0] == METADATA else ()
    found = run(words[0], *options, *words[1:])
    assert (found.status, found.out) == (status, "")
    lines = found.err.splitlines()
    assert len(lines) == 1 or words[0] == AGENT
    assert all(len(line) < 600 for line in lines)


@pytest.mark.parametrize("host", [LONG, "a..b"], ids=["long", "hollow"])
@pytest.mark.parametrize("command", [STATE, METADATA, AGENT])
def test_an_impossible_host_is_no_internal_error(command: str, host: str) -> None:
    words = {
        STATE: ("--once", "booted"),
        METADATA: ("--timeout", "1"),
        AGENT: ("-d", "--no-dns", "--deadline", "1", "--run-dir", "/dev/null"),
    }
    status, out, err = run(command, "--url", f"http://{host}", *words[command])
    assert status in {1, 2}
    assert out == ""
    assert "internal error" not in err
    assert len(err) < 1000


def test_a_key_of_absurd_length_is_reported_in_a_short_line(hostile_url: str) -> None:
    status, out, err = run(METADATA, "--url", hostile_url, LONG, f"tags.{LONG}")
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert len(err) < 600


def test_thousands_of_keys_are_looked_up(hostile_url: str) -> None:
    keys = ["commercial_type"] * 10_000
    status, out, _ = run(METADATA, "--url", hostile_url, *keys)
    assert (status, out.count("DEV1")) == (0, 10_000)


BRIEFLY = 'ulimit -t 3; exec "$@"'  # seconds of CPU


def test_thousands_of_missing_keys_are_reported_in_a_short_line(
    boot: Boot,
) -> None:
    keys = [f"my_{number}_no_such_key" for number in range(2000)]
    cached = ("--cached", "--run-dir", str(boot.directory))
    done = subprocess.run(
        ["sh", "-c", BRIEFLY, "sh", BIN / METADATA, *cached, *keys],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert len(done.stderr) < 600


INJECTIONS = [
    'booted", "state_detail": "stopped',
    'booted"}\r\nX-Injected: 1'.replace("\r\n", "%0d%0a"),
    r"booted\r\nX-Injected: 1",
    r"booted\u0022, \u0022x\u0022: 1",
    "booted\\",
    "'; reboot; '",
    "PATCH /state HTTP/1.1",
    "\xe9\U0001f421",
]


@pytest.mark.parametrize("state", INJECTIONS)
def test_a_state_is_a_value_in_the_body_and_nothing_else(state: str) -> None:
    with Emulator() as service:
        assert run(STATE, "--url", service.url, "booted").status == 0
        assert run(STATE, "--url", service.url, state).status == 0
        plain, injected = service.requests
    assert json.loads(injected.body) == {"state_detail": state}
    assert injected[:2] == plain[:2]
    assert [header for header in injected.headers if header[0] != "Content-Length"] == [
        header for header in plain.headers if header[0] != "Content-Length"
    ]


@pytest.mark.parametrize(
    "key", ["../state", "a HTTP/1.1", "?format=text", "%00", "a&b"]
)
def test_a_key_is_not_sent(key: str) -> None:
    with Emulator() as service:
        run(METADATA, "--url", service.url, key)
        (request,) = service.requests
    assert (request.method, request.target) == ("GET", "/conf?format=json")


HOSTILE_WORD = ESCAPES.replace("\ud800", "\udcff")  # a byte that is not UTF-8


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([STATE, HOSTILE_WORD], id="a state"),
        pytest.param([STATE, f"--{HOSTILE_WORD}"], id="an option"),
        pytest.param([STATE, f"-{HOSTILE_WORD}"], id="a letter"),
        pytest.param([STATE, f"--url=http://{HOSTILE_WORD}", "booted"], id="a URL"),
        pytest.param([STATE, "--url=http://h\r\nX: 1", "booted"], id="a header"),
        pytest.param([STATE, f"--timeout={HOSTILE_WORD}", "booted"], id="seconds"),
        pytest.param([METADATA, f"--prefix={HOSTILE_WORD}", "--sh"], id="a prefix"),
        pytest.param([METADATA, "--timeout=0.1", HOSTILE_WORD], id="a key"),
        pytest.param([AGENT, HOSTILE_WORD], id="an operand"),
        pytest.param([AGENT, f"--dns-name={HOSTILE_WORD}"], id="a name"),
        pytest.param(
            [AGENT, "-d", "--deadline=1", "--no-dns", f"--run-dir=/no/{HOSTILE_WORD}"],
            id="a directory",
        ),
        pytest.param(
            [AGENT, "-n", f"--run-dir=/no/{HOSTILE_WORD}"],
            id="its directory",
        ),
    ],
)
def test_nothing_on_a_command_line_is_obeyed_by_a_terminal(words: list[str]) -> None:
    sent = shown(*words)
    assert sent
    assert harmless(sent)


@pytest.mark.parametrize("variable", ["METADATA_IP", "METADATA_PORT"])
@pytest.mark.parametrize(
    "value", [HOSTILE_WORD, "127.0.0.1\r\nX: 1", "127.0.0.1/state?", "a@b"]
)
def test_a_hostile_environment_is_one_line_and_status_2(
    variable: str, value: str
) -> None:
    status, out, err = run(STATE, "booted", env={variable: value})
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.rstrip("\n").isprintable()
    assert len(err) < 600
