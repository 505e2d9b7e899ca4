"""SSH keys in the metadata. ssh-keygen(1) is the second opinion on what a key is."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scw_signal import keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scw_signal.document import Node

SAMPLES = Path(__file__).parent / "samples"
SK_ED25519 = "sk-ssh-ed25519@openssh.com"
SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"


class Curve(NamedTuple):
    """A curve y^2 = x^3 - 3x + b modulo p: FIPS 186-4, appendix D.1.2."""

    p: int
    b: int


CURVES = {
    "nistp256": Curve(
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    ),
    "nistp384": Curve(
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        int(
            "B3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE814112"
            "0314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF",
            16,
        ),
    ),
    "nistp521": Curve(
        2**521 - 1,
        int(
            "51953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E1"
            "56193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00",
            16,
        ),
    ),
}


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def mpint(number: int) -> bytes:
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def line(kind: str, *fields: bytes, comment: str = "") -> str:
    """Return a key; the fields follow its type, already packed."""
    blob = base64.b64encode(string(kind.encode()) + b"".join(fields)).decode()
    return f"{kind} {blob} {comment}".strip()


def point(name: str, x: int) -> bytes:
    """Return a point of a curve, packed; its abscissa is p // 3 + x or a bit more.

    OpenSSH rejects points with a small coordinate.
    """
    p, b = CURVES[name]
    size = (p.bit_length() + 7) // 8
    x += p // 3
    while True:
        square = (x**3 - 3 * x + b) % p
        y = pow(square, (p + 1) // 4, p)  # p is 3 modulo 4 on all three curves
        if y * y % p == square:
            return string(b"\x04" + x.to_bytes(size, "big") + y.to_bytes(size, "big"))
        x += 1


def ecdsa(kind: str, name: str, x: int, *more: bytes) -> str:
    return line(kind, string(name.encode()), point(name, x), *more)


ED25519 = line("ssh-ed25519", string(bytes(range(32))))
ANOTHER = line("ssh-ed25519", string(bytes(32)))
RSA = line("ssh-rsa", mpint(65537), mpint(2**2047 + 1))
X = 2**200
P256 = ecdsa("ecdsa-sha2-nistp256", "nistp256", X)


def account(*lines: Node) -> dict[str, Node]:
    return {"ssh_public_keys": list(lines)}


def only_complaint(document: dict[str, Node]) -> str:
    """Return what was wrong with the only candidate."""
    lines, complaints = keys.authorized_keys(document)
    assert lines == []
    (complaint,) = complaints
    assert complaint.isprintable()
    assert len(complaint) < 150
    return complaint


def fingerprints(lines: Sequence[str]) -> list[str]:
    """Return the fingerprints of the keys that ssh-keygen finds in a file."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed here")
    printed = subprocess.run(
        ["ssh-keygen", "-lf", "-"],
        input="".join(f"{line}\n" for line in lines).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    ).stdout
    # Once in many runs, ssh-keygen printed a comment over two lines.
    found = re.findall(rb"^\d+ (SHA256:\S+)", printed, flags=re.MULTILINE)
    return [each.decode() for each in found]


def fingerprint(line: str) -> str:
    digest = hashlib.sha256(base64.b64decode(line.split(" ")[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


# Where they come from


def test_account_keys_are_lines_or_objects_with_a_key() -> None:
    document = account(f"{ED25519} one", {"key": f"{ANOTHER} two", "fingerprint": "x"})
    assert keys.authorized_keys(document) == (
        [f"{ED25519} one", f"{ANOTHER} two"],
        [],
    )


def test_a_tag_has_underscores_for_spaces() -> None:
    tag = f"AUTHORIZED_KEY={ED25519} a b".replace(" ", "_")
    assert keys.authorized_keys({"tags": ["web", tag]}) == ([f"{ED25519} a b"], [])


def test_a_key_with_every_character_of_base64_survives_a_tag() -> None:
    key = line("ssh-ed25519", string(b"\0\0" + b"\xfb\xef\xbe" * 5 + b"\xff" * 15))
    assert "+" in key
    assert "/" in key
    document: dict[str, Node] = {"tags": [f"AUTHORIZED_KEY={key.replace(' ', '_')}"]}
    assert keys.authorized_keys(document)[0] == [key]


def test_other_tags_are_no_keys_and_no_complaints() -> None:
    tags: list[Node] = [f"MY_AUTHORIZED_KEY={ED25519}", ED25519, "AUTHORIZED_KEY", 7]
    assert keys.authorized_keys({"tags": tags}) == ([], [])


def test_a_key_is_there_once_whatever_its_comment() -> None:
    tag = f"AUTHORIZED_KEY={ED25519}_third".replace(" ", "_")
    document = account(f"{ED25519} first", f"{ED25519}  second")
    document["tags"] = [tag]
    assert keys.authorized_keys(document) == ([f"{ED25519} first"], [])


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"ssh_public_keys": None, "tags": None},
        {"ssh_public_keys": [], "tags": []},
        {"tags": "AUTHORIZED_KEY=x"},
        {"tags": {"0": "AUTHORIZED_KEY=x"}},
    ],
)
def test_no_keys_are_no_lines_and_no_complaints(document: dict[str, Node]) -> None:
    assert keys.authorized_keys(document) == ([], [])


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (account(ED25519, None), "ssh_public_keys.1"),
        (account(ED25519, 1), "ssh_public_keys.1"),
        (account(ED25519, {}), "ssh_public_keys.1"),
        (account(ED25519, {"key": [ANOTHER]}), "ssh_public_keys.1"),
        (account(ED25519, ""), "ssh_public_keys.1"),
        ({**account(ED25519), "tags": ["", "AUTHORIZED_KEY="]}, "tags.1"),
    ],
)
def test_a_bad_key_is_named_by_its_place_and_costs_no_other(
    document: dict[str, Node], place: str
) -> None:
    lines, (complaint,) = keys.authorized_keys(document)
    assert lines == [ED25519]
    assert complaint.startswith(f"{place}: ")


def test_keys_in_a_shape_never_seen_are_a_complaint() -> None:
    only_complaint({"ssh_public_keys": {"0": ED25519}})


@pytest.mark.parametrize("name", ["hostile", "legacy-2018"])
def test_samples_with_invalid_keys_give_none(name: str) -> None:
    document = json.loads((SAMPLES / f"conf-{name}.json").read_text())
    lines, complaints = keys.authorized_keys(document)
    assert lines == []
    assert complaints


# What is a line


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t", "\n\n"])
def test_white_space_around_a_line_is_cut_off(end: str) -> None:
    assert keys.authorized_keys(account(end + ED25519 + end))[0] == [ED25519]


@pytest.mark.parametrize(
    "options",
    [
        'command="id"',
        'command="ssh-ed25519 AAAA"',
        "restrict",
        'environment="A=b",no-pty',
        "cert-authority",
        'from="*"',
        "#",
        "@cert-authority",
        "ssh-ed25519",
        "ssh-ed25519,",
        "-",
    ],
)
def test_nothing_may_come_before_the_type(options: str) -> None:
    only_complaint(account(f"{options} {ED25519}"))
    only_complaint({"tags": [f"AUTHORIZED_KEY={options} {ED25519}".replace(" ", "_")]})


@pytest.mark.parametrize("break_", ["\n", "\r", "\0"])
@pytest.mark.parametrize("place", ["{0}{1}{0}", "{0} x{1}{0}", "ssh-ed25519{1}{2}"])
def test_a_line_break_or_nul_is_refused_wherever_it_is(break_: str, place: str) -> None:
    text = place.format(ED25519, break_, ED25519.split(" ")[1])
    assert "not a single line" in only_complaint(account(text))


@pytest.mark.parametrize(
    ("comment", "cleaned"),
    [
        ("a\u00a0b", "a b"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469 \U0001f4bb"),
        ("a\tb", "a b"),
        ("a\u00adb", "a b"),
        ("\u200fa", "a"),
        ("\u202ea", "a"),
        ("\x1b[31m", "[31m"),
        ("\u2028", ""),
        ("  a   b  ", "a b"),
    ],
    ids=ascii,
)
def test_unprintable_characters_in_a_comment_cost_no_key(
    comment: str, cleaned: str
) -> None:
    lines, complaints = keys.authorized_keys(account(f"{ED25519} {comment}"))
    assert lines == [f"{ED25519} {cleaned}".strip()]
    assert complaints == []


@pytest.mark.parametrize("between", ["\t", "  ", " \t "])
def test_tabs_and_spaces_may_stand_between_the_type_and_the_key(between: str) -> None:
    text = ED25519.replace(" ", between) + between + "comment"
    assert keys.authorized_keys(account(text))[0] == [f"{ED25519} comment"]


def test_a_comment_may_be_in_any_script() -> None:
    assert keys.authorized_keys(account(f"{ED25519} Zoé 🐡")) == (
        [f"{ED25519} Zoé 🐡"],
        [],
    )


def test_a_megabyte_is_refused_and_not_repeated() -> None:
    document: dict[str, Node] = {"tags": ["AUTHORIZED_KEY=" + "A" * 2**20]}
    assert only_complaint(document) == "tags.0: longer than 8192 characters"


def test_at_most_the_beginning_of_a_refused_line_is_shown() -> None:
    assert only_complaint(account("secret" * 100)) == (
        "ssh_public_keys.0: begins with 'secretsecretsecre...',"
        " which is not a type of login key"
    )


# What is a key


@pytest.mark.parametrize(
    "key",
    [
        ED25519,
        RSA,
        P256,
        ecdsa("ecdsa-sha2-nistp384", "nistp384", X),
        ecdsa("ecdsa-sha2-nistp521", "nistp521", X),
        line(SK_ED25519, string(bytes(32)), string(b"ssh:")),
        ecdsa(SK_ECDSA, "nistp256", X, string(b"ssh:login")),
        line("ssh-rsa", mpint(65537), mpint(2**1023 + 1)),
        line("ssh-rsa", mpint(3), mpint(2**16383 + 1)),
    ],
    ids=lambda key: key.split(" ")[0],
)
def test_every_type_that_openssh_accepts_is_accepted(key: str) -> None:
    assert keys.authorized_keys(account(f"{key} c")) == ([f"{key} c"], [])
    assert fingerprints([key]) == [fingerprint(key)]


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("ssh-ed25519", id="type-only"),
        pytest.param("ssh-ed25519 #", id="no-base64"),
        pytest.param(ED25519[:-1], id="cut"),
        pytest.param(RSA.rstrip("=") + "A", id="other-padding"),
        pytest.param(RSA + "=", id="more-padding"),
        pytest.param(ED25519.replace("AAAA", "AA-A", 1), id="base64url"),
        pytest.param(ED25519[:-1] + "é", id="not-ascii"),
        pytest.param(RSA.replace("ssh-rsa", "ssh-ed25519"), id="another-type"),
        pytest.param(
            line("ssh-rsa", string(bytes(32))).replace("ssh-rsa", "ssh-ed25519"),
            id="another-type-inside",
        ),
        pytest.param("ssh-ed25519 AAA=", id="no-string"),
        pytest.param("ssh-ed25519 /////3NzaC1lZDI1NTE5", id="huge-length"),
        pytest.param(
            line("ssh-dss", *[mpint(2**1023 + 1)] * 4),
            id="dss",
        ),
        pytest.param(
            line("ssh-ed25519-cert-v01@openssh.com", string(bytes(32))), id="cert"
        ),
    ],
)
def test_a_key_that_does_not_fit_its_type_is_refused(key: str) -> None:
    only_complaint(account(key))


# Any key, with any damage

comments = st.text(
    st.characters(exclude_categories=("C", "Z")), min_size=0, max_size=20
)
ed25519_keys = st.builds(
    lambda raw: line("ssh-ed25519", string(raw)), st.binary(min_size=32, max_size=32)
)
sk_keys = st.builds(
    lambda raw, name: line(SK_ED25519, string(raw), string(f"ssh:{name}".encode())),
    st.binary(min_size=32, max_size=32),
    st.text("abc.-:/", max_size=10),
)
rsa_keys = st.builds(
    lambda e, bits, n: line(
        "ssh-rsa", mpint(2 * e + 1), mpint(1 << bits - 1 | n % (1 << bits - 1) | 1)
    ),
    st.integers(1, 2**31),
    st.integers(1024, 4096),
    st.integers(0, 2**4096),
)
ecdsa_keys = st.builds(
    lambda name, x: ecdsa(f"ecdsa-sha2-{name}", name, x),
    st.sampled_from(["nistp256", "nistp384", "nistp521"]),
    st.integers(0, 2**250),
)
EVERY_KEY = st.one_of(ed25519_keys, sk_keys, rsa_keys, ecdsa_keys)

few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@few
@given(st.lists(st.tuples(EVERY_KEY, comments), min_size=10, max_size=20))
def test_every_key_comes_back_unchanged_and_openssh_accepts_it(
    made: list[tuple[str, str]],
) -> None:
    unique = {key: f"{key} {comment}".strip() for key, comment in reversed(made)}
    lines, complaints = keys.authorized_keys(account(*unique.values()))
    assert complaints == []
    assert lines == list(unique.values())
    assert fingerprints(lines) == [fingerprint(line) for line in lines]


NASTY = st.sampled_from([*'"#\\,=@ \t\n\r\0A/+_', "é", 'command="id" ', "ssh-rsa ", ""])


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(EVERY_KEY) + " " + draw(comments)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, min(len(text), 60)))
        cut = draw(st.integers(0, 2))
        text = text[:at] + draw(NASTY) + text[at + cut :]
    return text


@few
@given(st.lists(damaged(), min_size=30, max_size=40))
def test_whatever_is_printed_of_damaged_lines_is_one_line_that_begins_with_a_type(
    texts: list[str],
) -> None:
    lines, complaints = keys.authorized_keys(account(*texts))
    assert len(lines) + len(complaints) <= len(texts)
    assert all(line.split(" ")[0] in keys.KINDS for line in lines)
    assert all(text.isprintable() for text in (*lines, *complaints))
    # sshd takes no key that differs from what stands there.
    assert set(fingerprints(lines)) <= {fingerprint(line) for line in lines}


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["key", "x"]), inner, max_size=2)
    ),
    max_leaves=10,
)


@given(json_values, json_values)
def test_no_document_is_an_error(account_keys: Any, tags: Any) -> None:
    lines, _ = keys.authorized_keys({"ssh_public_keys": account_keys, "tags": tags})
    assert lines == []
