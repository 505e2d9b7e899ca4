"""The flat form: a look-up finds what was dumped, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scw_signal import flat

unhurried = settings(deadline=None)  # the machine may have other things to do
ESCAPES = st.text("\\ne=\n#AB_ ")  # the characters that the form itself uses
ANY_TEXT = ESCAPES | st.text(st.characters())  # lone surrogates as well
NAMES = st.text("\\ne=\n#AB_ ", min_size=1) | st.text(st.characters(), min_size=1)
PAIRS = st.lists(st.tuples(NAMES, st.none() | ANY_TEXT), unique_by=lambda pair: pair[0])


def test_a_dump_is_a_header_and_a_line_for_each_name() -> None:
    assert flat.dump(
        [("HOSTNAME", "puffy"), ("EMPTY", ""), ("NULL", None), ("TWO", "a\nb\\n")]
    ) == (
        "# scw-signal flat metadata 1\nHOSTNAME=puffy\nEMPTY=\nNULL\nTWO=a\\nb\\\\n\n"
    )


@unhurried
@given(PAIRS)
def test_a_dump_can_be_loaded_again(pairs: list[tuple[str, str | None]]) -> None:
    assert list(flat.load(flat.dump(pairs))) == pairs


@unhurried
@given(PAIRS, NAMES)
def test_each_name_finds_its_own_value_and_no_other_name_finds_any(
    pairs: list[tuple[str, str | None]], other: str
) -> None:
    view = flat.dump(pairs)
    values = dict(pairs)
    for name in (*values, other):
        assert flat.find(view, name) == (name in values, values.get(name))


@pytest.mark.parametrize(
    "name",
    ["", "HOST", "HOSTNAME=puffy", "OSTNAME", "hostname", "puffy", "X", "# scw-signal"],
)
def test_what_only_looks_like_a_name_is_not_found(name: str) -> None:
    view = flat.dump([("HOSTNAME", "puffy\nX=1\nHOST=2"), ("HOSTNAMES", None)])
    assert flat.find(view, name) == (False, None)


@unhurried
@given(PAIRS.filter(bool), st.data())
def test_a_file_that_ends_within_a_line_is_no_document(
    pairs: list[tuple[str, str | None]], data: st.DataObject
) -> None:
    view = flat.dump(pairs)
    cut = view[: data.draw(st.integers(0, len(view) - 1))]
    whole_lines = cut.startswith(flat.HEADER) and cut.endswith("\n")
    assert flat.is_flat(view)
    assert flat.is_flat(cut) == whole_lines


@pytest.mark.parametrize("text", ["", "HOSTNAME=puffy\n", "# another format\nA=1\n"])
def test_another_format_is_no_document(text: str) -> None:
    assert not flat.is_flat(text)
    assert list(flat.load(text)) == []


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("hostname", "HOSTNAME"),
        ("public_ip.address", "PUBLIC_IP_ADDRESS"),
        ("PUBLIC_IP_ADDRESS", "PUBLIC_IP_ADDRESS"),
        ("Tags.0", "TAGS_0"),
        ("\u0131d", "\u0131D"),  # a dotless i is no I
        ("\u017fize", "\u017fIZE"),  # a long s is no S
        ("stra\xdfe", "STRA\xdfE"),
    ],
)
def test_a_key_is_taken_in_any_case_with_dots_or_underscores(
    key: str, name: str
) -> None:
    assert flat.canonical(key) == name


@unhurried
@given(st.text(st.characters()))
def test_a_canonical_key_stays_as_it_is(key: str) -> None:
    assert flat.canonical(flat.canonical(key)) == flat.canonical(key)
