"""The sandbox: its calls to the C library, their order, and what an error does."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import pwd
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import scw_signal
from scw_signal import sandbox
from scw_signal.sandbox import Sandbox

FILES = b"rpath wpath cpath"


class Function:
    """A foreign function as ctypes gives it; fails with an error if told to."""

    def __init__(self, name: str, log: list[tuple[object, ...]], error: int) -> None:
        self._name, self._log, self._error = name, log, error
        self.argtypes: tuple[object, ...] = ()
        self.restype: object = None

    def __call__(self, first: bytes, second: bytes | None) -> int:
        assert self.argtypes == (ctypes.c_char_p, ctypes.c_char_p)
        assert self.restype is ctypes.c_int
        self._log.append((self._name, first, second))
        if self._error:
            ctypes.set_errno(self._error)
            return -1
        return 0


class Library(SimpleNamespace):
    """A C library that has these functions, which fail with these errors."""

    def __init__(self, **errors: int) -> None:
        self.called: list[tuple[object, ...]] = []
        for name, error in errors.items():
            setattr(self, name, Function(name, self.called, error))


class Told:
    """What the sandbox said."""

    def __init__(self) -> None:
        self.debug: list[str] = []
        self.warn: list[str] = []


@pytest.fixture
def told() -> Told:
    return Told()


def box(told: Told, libc: object) -> Sandbox:
    return Sandbox(told.debug.append, told.warn.append, libc)


def test_the_agent_unveils_its_directory_and_then_only_drops_promises(
    told: Told,
) -> None:
    libc = Library(unveil=0, pledge=0)
    confined = box(told, libc)
    confined.hide_files("/var/run/scw_signal")
    confined.pledge()
    confined.narrow("signal")
    confined.narrow("leave")
    assert libc.called == [
        ("unveil", b"/var/run/scw_signal", b"rwc"),
        ("pledge", b"stdio inet dns " + FILES, None),
        ("pledge", b"stdio inet " + FILES, None),
        ("pledge", b"stdio " + FILES, None),
    ]
    assert told.warn == []


def test_without_a_directory_no_file_is_visible_or_promised(told: Told) -> None:
    libc = Library(unveil=0, pledge=0)
    confined = box(told, libc)
    confined.hide_files(None)
    confined.pledge()
    confined.narrow("leave")
    assert libc.called == [
        ("unveil", b"/", b""),
        ("pledge", b"stdio inet dns", None),
        ("pledge", b"stdio", None),
    ]


def test_each_stage_promises_less_than_the_one_before() -> None:
    stages = [set(promises.split()) for promises in sandbox.PROMISES.values()]
    assert list(sandbox.PROMISES) == ["wait", "signal", "leave"]
    assert all(after < before for before, after in itertools.pairwise(stages))


def test_a_command_pledges_but_hides_no_files(told: Told) -> None:
    libc = Library(unveil=0, pledge=0)
    box(told, libc).restrict()
    assert libc.called == [("pledge", b"stdio inet dns " + FILES, None)]


@pytest.mark.parametrize("fails", ["unveil", "pledge"])
def test_an_error_is_a_warning_and_the_work_goes_on(told: Told, fails: str) -> None:
    libc = Library(**{"unveil": 0, "pledge": 0, fails: errno.EINVAL})
    confined = box(told, libc)
    confined.hide_files("/run")
    confined.pledge()
    confined.narrow("leave")
    assert [name for name, *_ in libc.called] == ["unveil", "pledge", "pledge"]
    assert told.warn
    for line in told.warn:
        assert line.startswith(f"sandbox: {fails} ")
        assert os.strerror(errno.EINVAL) in line


@pytest.mark.parametrize("missing", ["unveil", "pledge"])
def test_if_the_library_lacks_one_function_the_other_is_called(
    told: Told, missing: str
) -> None:
    libc = Library(**{name: 0 for name in ("unveil", "pledge") if name != missing})
    confined = box(told, libc)
    confined.hide_files("/run")
    confined.pledge()
    assert {name for name, *_ in libc.called} == {"unveil", "pledge"} - {missing}
    assert told.debug == [f"sandbox: this C library has no {missing}"]


@pytest.mark.skipif(sandbox.available(), reason="this system has pledge")
def test_elsewhere_nothing_is_done_and_debug_says_so(told: Told) -> None:
    confined = box(told, None)
    confined.hide_files("/run")
    confined.pledge()
    confined.narrow("leave")
    assert told.debug == ["sandbox: this system has no pledge and unveil"]
    assert told.warn == []


def test_on_openbsd_the_library_of_this_process_is_opened_with_errno(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    libc = Library(unveil=0, pledge=0)

    def library(name: str | None, *, use_errno: bool) -> Library:
        opened.append((name, use_errno))
        return libc

    monkeypatch.setattr(sys, "platform", "openbsd7")
    monkeypatch.setattr(ctypes, "CDLL", library)
    box(told, None).restrict()
    assert opened == [(None, True)]
    assert len(libc.called) == 1


def test_preload_imports_what_is_needed_after_the_lock_down() -> None:
    """Look in a new process: here pytest has imported most of these."""
    script = "from scw_signal import sandbox; sandbox.preload()"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; import sys; print(*sys.modules)"],
        env={"PYTHONPATH": str(Path(scw_signal.__file__).parent.parent)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert {
        "unicodedata", "stringprep", "difflib", "tenacity", "scw_signal.retrying",
        "encodings.idna", "encodings.latin_1", "encodings.ascii",
    } <= set(done.stdout.split())  # fmt: skip


def test_root_becomes_the_user_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[object, ...]] = []
    user = pwd.struct_passwd(
        ("_scwsignal", "*", 777, 778, "", "/nonexistent", "/sbin/nologin")
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", {"_scwsignal": user}.__getitem__)
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, name, lambda *a, name=name: called.append((name, *a)))
    found = sandbox.user_for_root()
    assert found == user
    sandbox.switch_user(user)
    # Groups first: without root they can no longer be changed.
    assert called == [
        ("setgroups", [778]),
        ("setresgid", 778, 778, 778),
        ("setresuid", 777, 777, 777),
    ]


def test_there_is_no_user_to_switch_to_without_the_account_or_root(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", {}.__getitem__)
    assert sandbox.user_for_root() is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(pwd, "getpwnam", lambda _: pytest.fail("nobody was to ask"))
    assert sandbox.user_for_root() is None
