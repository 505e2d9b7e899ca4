"""Output formats: what a script reads back is what the document said."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scw_signal import document, flat, render

unhurried = settings(deadline=None)  # the machine may be busy
SAMPLES = Path(__file__).parent / "samples"
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]*", fullmatch=True)
# What a shell can hold: no NUL, and only what UTF-8 can encode.
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
TRICKY = st.text("'\"\\$`();&|<>*?[]{}~!#=- \t\n\r\x01\x7f\x81\xffa")
PAIRS = st.lists(
    st.tuples(NAMES, st.none() | TRICKY | VALUES), unique_by=lambda pair: pair[0]
)

# The hostile sample, name by name.
HOSTILE: list[tuple[str, str | None]] = [
    ("ID", "00000000-0000-4000-8000-000000000001"),
    ("HOSTNAME", "x"),
    ("NAME", 'it\'s "quoted" $(touch /tmp/pwned) `id` \\ end'),
    ("STATE_DETAIL", "booted"),
    ("TAGS", "9"),
    ("TAGS_0", ""),
    ("TAGS_1", "a'b'c"),
    ("TAGS_2", "two\nlines"),
    ("TAGS_3", "-n"),
    ("TAGS_4", "$HOME"),
    ("TAGS_5", "TAGS_9=1"),
    ("TAGS_6", 'AUTHORIZED_KEY=ssh-ed25519_AAAA\ncommand="id"'),
    ("TAGS_7", "caf\xe9 \U0001f421"),
    ("TAGS_8", "\u202eoverride"),
    ("SSH_PUBLIC_KEYS", "1"),
    ("SSH_PUBLIC_KEYS_0", "ssh-rsa AAAA== plain-string-form"),
    ("PUBLIC_IP", "198.51.100.9"),
    ("VOLUMES", "0"),
    ("WEIRD KEY; TOUCH /TMP/PWNED", "v"),
    ("IFS", "x"),
    ("PATH", " A"),
    ("PATH_", "empty key"),
    ("PATH_A", "B"),
    ("PATH_A_B", "2"),
    ("PATH_A_B_0", "5"),
    ("PATH_A_B_0_0", "1"),
    ("PATH_A_B_0_1", "2.5"),
    ("PATH_A_B_0_2", "True"),
    ("PATH_A_B_0_3", None),
    ("PATH_A_B_0_4", ""),
    ("PATH_A_B_1", "0"),
    ("TIMEZONE", None),
]

HOSTILE_TEXT = """\
ID=00000000-0000-4000-8000-000000000001
HOSTNAME=x
NAME='it'"'"'s "quoted" $(touch /tmp/pwned) `id` \\ end'
STATE_DETAIL=booted
TAGS=9
TAGS_0=''
TAGS_1='a'"'"'b'"'"'c'
TAGS_2='two
lines'
TAGS_3=-n
TAGS_4='$HOME'
TAGS_5=TAGS_9=1
TAGS_6='AUTHORIZED_KEY=ssh-ed25519_AAAA
command="id"'
TAGS_7='caf\xe9 \U0001f421'
TAGS_8='\u202eoverride'
SSH_PUBLIC_KEYS=1
SSH_PUBLIC_KEYS_0='ssh-rsa AAAA== plain-string-form'
PUBLIC_IP=198.51.100.9
VOLUMES=0
IFS=x
PATH=' A'
PATH_='empty key'
PATH_A=B
PATH_A_B=2
PATH_A_B_0=5
PATH_A_B_0_0=1
PATH_A_B_0_1=2.5
PATH_A_B_0_2=True
PATH_A_B_0_3=
PATH_A_B_0_4=''
PATH_A_B_1=0
TIMEZONE=
"""

# Invalid names, some of which would run a command.
NO_NAMES = [
    "A-B", "A B", "A=B", "A\nB", "A;touch canary;B", "A$(touch canary)",
    "A`touch canary`", "A'", "a", "\xc9", "\u0131D", "A\0", "A[0]", "A+",
]  # fmt: skip


def sample(name: str) -> list[tuple[str, str | None]]:
    return document.flatten(document.parse((SAMPLES / name).read_bytes()))


# The text form of the service


@pytest.mark.parametrize(
    "name", ["conf-routed-ipv4", "conf-ipv6-only", "conf-legacy-2018"]
)
def test_the_text_form_is_the_services_own_byte_for_byte(name: str) -> None:
    expected = (SAMPLES / f"{name}.txt").read_bytes()
    assert render.text(sample(f"{name}.json")).encode() == expected


@pytest.mark.parametrize("value", ["a", "0", "A_b-c.d/e:f,g+h=i@j%k", "-n", "="])
def test_harmless_characters_stay_bare_in_text(value: str) -> None:
    assert render.text([("A", value)]) == f"A={value}\n"


@pytest.mark.parametrize(
    "value", ["a b", "a;b", "~", "*", "$A", "a\tb", "a\nb", "#", "!", "\xe9", "{a,b}"]
)
def test_all_else_is_quoted_in_text(value: str) -> None:
    assert render.text([("A", value)]) == f"A='{value}'\n"


def test_text_tells_null_from_empty() -> None:
    assert render.text([("NULL", None), ("EMPTY", "")]) == "NULL=\nEMPTY=''\n"


@unhurried
@given(PAIRS)
def test_the_text_form_means_the_same_to_the_standard_library(
    pairs: list[tuple[str, str | None]],
) -> None:
    assert shlex.split(render.text(pairs)) == [
        f"{name}={value or ''}" for name, value in pairs
    ]


# What a shell cannot take


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_no_identifier_is_left_out(name: str) -> None:
    pairs = [("A", "1"), (name, "$(touch canary)"), ("B", "2")]
    assert render.text(pairs) == "A=1\nB=2\n"
    assert render.shell(pairs) == "SCW_A='1'\nSCW_B='2'\n"


def test_a_name_may_begin_with_a_digit_after_a_prefix_only() -> None:
    assert render.text([("0", "x")]) == ""
    assert render.shell([("0", "x")]) == "SCW_0='x'\n"


def test_a_value_with_a_nul_is_left_out() -> None:
    assert render.text([("A", "a\0b"), ("B", "2")]) == "B=2\n"
    assert render.shell([("A", "a\0b"), ("B", "2")]) == "SCW_B='2'\n"


def test_if_two_keys_make_the_same_name_the_first_is_assigned() -> None:
    pairs = document.flatten({"a.b": "first", "a_b": "second"})
    assert render.shell(pairs) == "SCW_A_B='first'\n"


def test_raw_values_are_printed_one_a_line() -> None:
    assert render.values(["a b", None, "", "'"]) == "a b\n\n\n'\n"


# The hostile sample


def test_the_hostile_sample_is_flattened_value_by_value() -> None:
    assert sample("conf-hostile.json") == HOSTILE


def test_the_hostile_sample_is_quoted_in_text() -> None:
    assert render.text(HOSTILE) == HOSTILE_TEXT


def test_the_hostile_sample_survives_the_flat_form() -> None:
    view = flat.dump(HOSTILE)
    assert list(flat.load(view)) == HOSTILE
    for name, value in HOSTILE:
        assert flat.find(view, name) == (True, value)


def test_the_hostile_sample_is_quoted_in_assignments() -> None:
    lines = render.shell(HOSTILE)
    assert lines.startswith("SCW_ID='00000000-0000-4000-8000-000000000001'\n")
    assert """SCW_NAME='it'"'"'s "quoted" $(touch /tmp/pwned) `id` \\ end'\n""" in lines
    assert "SCW_TAGS_2='two\nlines'\n" in lines
    assert "SCW_IFS='x'\nSCW_PATH=' A'\nSCW_PATH_='empty key'\n" in lines
    assert "WEIRD" not in lines


# Real shells

READ = {"sourced": ". ./values.env", "evaluated": 'eval "$(cat values.env)"'}


@pytest.fixture(params=["sh", "dash", "bash", "mksh", "ksh93", "ksh"], scope="module")
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    return name


@pytest.fixture(params=READ, scope="module")
def read(request: pytest.FixtureRequest) -> str:
    return READ[request.param]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty directory, where a canary would be seen."""
    return tmp_path_factory.mktemp("room")


def in_shell(shell: str, script: str, room: Path, values: str) -> bytes:
    """Run a script in `room`, beside `values.env`; return what it printed."""
    (room / "values.env").write_bytes(values.encode())
    done = subprocess.run(
        [shell, "-c", script],
        cwd=room,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def contents(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def read_back(
    shell: str, read: str, room: Path, pairs: list[tuple[str, str | None]]
) -> list[str]:
    """Return the value of each of `pairs` as the shell has it after reading."""
    variables = " ".join(f'"${{SCW_{name}-unset}}"' for name, _ in pairs)
    script = f"{read}\nprintf '%s\\0' {variables}"
    printed = in_shell(shell, script, room, render.shell(pairs))
    return printed.decode().split("\0")[: len(pairs)]


CHARACTERS = [chr(code) for code in (*range(1, 256), 0x202E, 0xFFFD, 0x1F421)]
ATTACKS: list[str | None] = [
    None,
    "$(touch canary)",
    "`touch canary`",
    "'; touch canary; '",
    "'\ntouch canary\n'",
    "'$(touch canary)'",
    '"$(touch canary)"',
    "\\'; touch canary; \\'",
    "${x:=$(touch canary)}",
    "$((touch canary))",
    "<(touch canary) >canary |touch canary& ;touch canary",
    "'\"'\"'; touch canary; '\"'\"'",
    "\n\n trailing newlines \n\n\n",
    "\\",
    "\\\n",
    "'" * 1000,
    "long" * 20_000,
    "-n",
    "%s%n\\0",
    "!! !touch ^a^b",
]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(CHARACTERS, id="characters"),
        pytest.param([f"{c}a{c}{c}" for c in CHARACTERS], id="repeated"),
        pytest.param(ATTACKS, id="attacks"),
    ],
)
def test_a_shell_reads_every_value_back_and_runs_nothing(
    shell: str, read: str, tmp_path: Path, values: list[str | None]
) -> None:
    pairs = [(f"V_{at}", value) for at, value in enumerate(values)]
    assert read_back(shell, read, tmp_path, pairs) == [value or "" for value in values]
    assert contents(tmp_path) == ["values.env"]


@settings(deadline=None, max_examples=20)
@given(PAIRS)
def test_a_shell_reads_any_value_back(
    shell: str, read: str, room: Path, pairs: list[tuple[str, str | None]]
) -> None:
    assert read_back(shell, read, room, pairs) == [value or "" for _, value in pairs]
    assert contents(room) == ["values.env"]


def test_a_shell_reads_the_hostile_sample_back(
    shell: str, read: str, tmp_path: Path
) -> None:
    pairs = [pair for pair in HOSTILE if render.is_name(pair[0])]
    assert len(pairs) == len(HOSTILE) - 1
    assert read_back(shell, read, tmp_path, pairs) == [
        value or "" for _, value in pairs
    ]


# What a shell changes by itself.
VOLATILE = re.compile(
    rb"(_|_AST_FEATURES|LINENO|S?RANDOM|SECONDS|EPOCH\w+|BASH\w+|PIPESTATUS\S*)="
)


def steady(variables: bytes) -> list[bytes]:
    return [line for line in variables.splitlines() if not VOLATILE.match(line)]


def test_reading_sets_no_variable_outside_of_the_prefix(
    shell: str, read: str, tmp_path: Path
) -> None:
    pairs = [
        *HOSTILE,
        *((name, "$(touch canary)") for name in NO_NAMES),
        *((name, "1") for name in ("HOME", "ENV", "PS4", "LC_ALL", "UID", "RANDOM")),
        *((f"V_{at}", value) for at, value in enumerate(ATTACKS)),
    ]
    names = " ".join(
        f"SCW_{name}" for name, _ in pairs if render.is_name(f"SCW_{name}")
    )
    # Once the expected variables are unset, no difference may be left.
    script = f"set\necho ----\n{read}\nunset {names}\nset"
    before, after = in_shell(shell, script, tmp_path, render.shell(pairs)).split(
        b"----\n"
    )
    assert steady(after) == steady(before)
    assert contents(tmp_path) == ["values.env"]


def test_another_prefix_goes_before_every_name(
    shell: str, read: str, tmp_path: Path
) -> None:
    values = render.shell([("A", "it's"), ("0", "zero")], prefix="SRV_")
    printed = in_shell(shell, f'{read}\necho "$SRV_A $SRV_0"', tmp_path, values)
    assert printed == b"it's zero\n"
