"""User data: whether it is a script, what else it is, and what would run it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scw_signal.script import has_dos_lines, interpreter, not_a_script


@pytest.mark.parametrize("data", [b"#!/bin/sh\n", b"#!/bin/sh", b"#! /bin/ksh -e\n"])
def test_what_begins_with_a_hash_and_a_bang_is_a_script(data: bytes) -> None:
    assert not_a_script(data) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b" \n\t", "it is empty"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"#cloud-config\npackages: []\n", "cloud-config"),
        (b"Content-Type: multipart/mixed; boundary=x\n", "MIME"),
        (b"content-type: multipart/mixed\n", "MIME"),
        (b"MIME-Version: 1.0\n", "MIME"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "byte order mark"),
        (b"echo hello\n", "begin with #!"),
        (b"\n#!/bin/sh\n", "begin with #!"),
        (b"\xff\xfe#\x00!\x00", "begin with #!"),
    ],
)
def test_the_error_says_what_the_data_is_instead(data: bytes, said: str) -> None:
    assert said in str(not_a_script(data))


@given(st.binary())
def test_any_data_is_a_script_or_one_line_says_why_not(data: bytes) -> None:
    said = not_a_script(data)
    assert (said is None) == data.startswith(b"#!")
    assert said is None or said.isprintable()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (b"#!/bin/sh\necho\n", ["/bin/sh"]),
        (b"#!  /usr/bin/env  -S python3 -u\n", ["/usr/bin/env", "-S", "python3", "-u"]),
        (b"#!/bin/sh", ["/bin/sh"]),
        (b"#!\n", []),
        (b"#!/opt/\xff\n", ["/opt/\udcff"]),
    ],
)
def test_the_first_line_names_the_interpreter(script: bytes, words: list[str]) -> None:
    assert interpreter(script) == words


@pytest.mark.parametrize(
    ("script", "dos"),
    [
        (b"#!/bin/sh\r\necho\r\n", True),
        (b"#!/bin/sh\r", True),
        (b"#!/bin/sh\necho\r\n", False),
        (b"#!/bin/sh\n", False),
    ],
)
def test_dos_line_ends_are_detected_in_the_first_line(
    script: bytes, *, dos: bool
) -> None:
    assert has_dos_lines(script) == dos
