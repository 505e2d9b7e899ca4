"""Showing text from elsewhere: nothing that a terminal obeys gets through."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scw_signal import terminal

unhurried = settings(deadline=None)  # the machine may have other things to do
ANY_TEXT = st.text(st.characters())  # lone surrogates as well
HOSTILE = ANY_TEXT | st.text("\x1b\x9b\x07\r\n\t\b\0[2Ja\u202e\u2066\udcff\x7f")

SHOWN = [
    pytest.param("plain text, 'quoted' \\ and déjà vu 🐡", None, id="printable"),
    pytest.param("", None, id="empty"),
    pytest.param("\x1b]0;owned\x07", r"\x1b]0;owned\x07", id="title escape"),
    pytest.param("\x9b2J", r"\x9b2J", id="C1 control"),
    pytest.param("a\rb", r"a\rb", id="carriage return"),
    pytest.param("\0", r"\x00", id="NUL"),
    pytest.param("\u202egnp.exe", r"\u202egnp.exe", id="bidi override"),
    pytest.param("a\u2028b", r"a\u2028b", id="line separator"),
    pytest.param("\udcff", r"\udcff", id="lone surrogate"),
    pytest.param("\U000e0041", r"\U000e0041", id="tag character"),
]


@pytest.mark.parametrize(("value", "shown"), SHOWN)
def test_controls_are_escaped_and_all_else_is_shown(
    value: str, shown: str | None
) -> None:
    assert terminal.printable(value) == (value if shown is None else shown)
    assert terminal.lines(value) == (value if shown is None else shown)


def test_one_line_stays_one_line() -> None:
    assert terminal.printable("a\nb\tc") == r"a\nb\tc"


def test_the_lines_and_tabs_of_a_text_are_kept() -> None:
    assert terminal.lines("a\n\tb\r\n") == "a\n\tb\\r\n"


@unhurried
@given(HOSTILE, st.integers(3, 60))
def test_a_shown_line_is_printable_and_no_longer_than_asked_for(
    value: str, most: int
) -> None:
    shown = terminal.printable(value, most)
    assert shown.isprintable()
    assert len(shown) <= most


@unhurried
@given(HOSTILE)
def test_no_control_or_override_is_shown_in_lines(value: str) -> None:
    shown = terminal.lines(value)
    assert {
        unicodedata.category(char) for char in shown if char not in "\n\t"
    }.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
    assert shown.count("\n") == value.count("\n")


@unhurried
@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_what_is_printable_is_left_alone(value: str) -> None:
    assert terminal.lines(value) == value
    assert terminal.printable(value, 10_000) == value


def test_text_that_is_cut_off_says_so() -> None:
    assert terminal.printable("x" * 10, 10) == "x" * 10
    assert terminal.printable("x" * 11, 10) == "x" * 7 + "..."
    assert terminal.printable("\0" * 100, 10) == r"\x00\x0" + "..."
