"""Files in the run directory: old or new, never half, and never somebody else's."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import scw_signal
from scw_signal import store
from scw_signal.errors import StoreError
from scw_signal.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534
OLD, NEW = b"the old one\n", b"the new one\n"
TEMPORARY = f".state.{os.getpid()}"


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "scw_signal"


@pytest.fixture
def opened(directory: Path) -> Iterator[Store]:
    """Yield a store with one file; afterwards no descriptor may be left open."""
    before = descriptors()
    opened = Store(str(directory))
    opened.write("state", OLD)
    yield opened
    opened.close()
    assert descriptors() == before


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a file of somebody else's, which nothing here may change."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    return victim


def descriptors() -> set[int]:
    found = set()
    for descriptor in range(256):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        found.add(descriptor)
    return found


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def failing(number: int) -> Callable[..., int]:
    def fail(*_arguments: object, **_options: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


# What is written.


@pytest.mark.parametrize("data", [b"", NEW, b"\x00\xff\r\n", b"x" * 5_000_000])
def test_what_was_written_can_be_read_byte_for_byte(
    opened: Store, directory: Path, data: bytes
) -> None:
    opened.write("state", data)
    assert contents(directory) == {"state": data}


def test_everybody_may_read_it_and_only_the_owner_write(
    opened: Store, directory: Path
) -> None:
    opened.write("state", NEW)
    assert (directory / "state").stat().st_mode & 0o7777 == 0o644
    assert directory.stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_modes_are_what_was_asked_for_whatever_the_umask(
    directory: Path, umask: int
) -> None:
    os.umask(umask)
    made = Store(str(directory), 0o711)
    made.write("state", NEW, 0o640)
    made.close()
    assert directory.stat().st_mode & 0o7777 == 0o711
    assert (directory / "state").stat().st_mode & 0o7777 == 0o640
    assert os.umask(0) == umask


def test_a_system_that_writes_a_byte_at_a_time_gets_it_all(
    opened: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:1]))
    opened.write("state", NEW)
    assert contents(directory) == {"state": NEW}


def test_files_do_not_disturb_each_other(opened: Store, directory: Path) -> None:
    opened.write(store.METADATA_JSON, b"{}")
    opened.write(store.METADATA_FLAT, b"NAME=x\n")
    assert contents(directory) == {
        "state": OLD, "metadata.json": b"{}", "metadata.flat": b"NAME=x\n",
    }  # fmt: skip


def test_two_stores_can_write_at_once(opened: Store, directory: Path) -> None:
    second = Store(str(directory))
    second.write("state", NEW)
    second.close()
    assert contents(directory) == {"state": NEW}
    opened.write("state", OLD)
    assert contents(directory) == {"state": OLD}


# Old or new.


def test_a_file_is_whole_and_on_the_disk_before_it_gets_its_name(
    opened: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        steps.append(("fsync", contents(directory)))
        fsync(descriptor)

    def watched_rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        steps.append(("rename", contents(directory)))
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    opened.write("state", NEW)
    both = {"state": OLD, TEMPORARY: NEW}
    assert steps == [("fsync", both), ("rename", both)]


@pytest.mark.parametrize(("durable", "synced"), [(True, 1), (False, 0)])
def test_a_name_that_must_outlive_a_power_loss_is_synced_with_its_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool, synced: int
) -> None:
    directory.mkdir()
    found = Store(str(directory), durable=durable)
    seen = []

    def watched(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            seen.append(contents(directory))

    monkeypatch.setattr(os, "fsync", watched)
    found.write("instance", NEW)
    assert seen == [{"instance": NEW}] * synced
    found.remove("instance")
    assert seen == [{"instance": NEW}, {}][: 2 * synced]
    found.close()


def test_removing_a_missing_file_is_no_error(opened: Store) -> None:
    opened.remove("instance")


def test_a_file_that_cannot_be_removed_is_an_error(
    opened: Store, directory: Path
) -> None:
    (directory / "instance").mkdir()
    with pytest.raises(StoreError, match=r"/instance: "):
        opened.remove("instance")


def test_a_reader_sees_the_old_file_or_the_new_one(
    opened: Store, directory: Path
) -> None:
    versions = [bytes([digit]) * 100_000 for digit in b"0123456789"]
    opened.write("state", versions[0])
    done = threading.Event()
    wrong = []

    def read() -> None:
        while not done.is_set():
            seen = (directory / "state").read_bytes()
            if seen not in versions:
                wrong.append(seen)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in versions * 20:
            opened.write("state", version)
    finally:
        done.set()
        reader.join()
    assert wrong == []


# What somebody planted.


def test_a_symlink_in_the_place_of_a_file_is_replaced_and_not_followed(
    opened: Store, directory: Path, victim: Path
) -> None:
    (directory / "state").unlink()
    (directory / "state").symlink_to(victim)
    opened.write("state", NEW)
    assert victim.read_bytes() == b"precious"
    assert not (directory / "state").is_symlink()
    assert contents(directory) == {"state": NEW}


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_a_link_under_the_temporary_name_is_not_written_through(
    opened: Store, directory: Path, victim: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(victim, directory / TEMPORARY)
    opened.write("state", NEW)
    assert victim.read_bytes() == b"precious"
    assert contents(directory) == {"state": NEW}


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_a_link_planted_at_the_last_moment_is_not_written_through(
    opened: Store,
    directory: Path,
    victim: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[Path, Path], None],
) -> None:
    def planted(*_arguments: object, **_options: object) -> None:
        monkeypatch.undo()
        plant(victim, directory / TEMPORARY)

    monkeypatch.setattr(os, "unlink", planted)
    with pytest.raises(StoreError):
        opened.write("state", NEW)
    assert victim.read_bytes() == b"precious"
    assert contents(directory) == {"state": OLD}


def test_a_file_left_by_a_killed_process_with_our_id_is_no_obstacle(
    opened: Store, directory: Path
) -> None:
    (directory / TEMPORARY).write_bytes(b"half of a fi")
    opened.write("state", NEW)
    assert contents(directory) == {"state": NEW}


@pytest.mark.parametrize("name", ["state", TEMPORARY], ids=["the file", "the new one"])
def test_a_directory_in_the_way_is_an_error_and_stays(
    opened: Store, directory: Path, name: str
) -> None:
    (directory / "state").unlink()
    (directory / name).mkdir()
    with pytest.raises(StoreError):
        opened.write("state", NEW)
    assert [path.name for path in directory.iterdir()] == [name]


def test_a_fifo_in_the_place_of_a_file_holds_nobody_up(
    opened: Store, directory: Path
) -> None:
    (directory / "state").unlink()
    os.mkfifo(directory / "state")
    opened.write("state", NEW)
    assert contents(directory) == {"state": NEW}


def test_a_directory_that_is_exchanged_afterwards_is_not_written_to(
    opened: Store, directory: Path, tmp_path: Path
) -> None:
    moved, elsewhere = tmp_path / "moved", tmp_path / "elsewhere"
    directory.rename(moved)
    elsewhere.mkdir()
    (elsewhere / TEMPORARY).write_bytes(b"stays")
    directory.symlink_to(elsewhere)
    opened.write("state", NEW)
    assert contents(elsewhere) == {TEMPORARY: b"stays"}
    assert contents(moved) == {"state": NEW}


# When it cannot be written.


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("open", errno.ENOSPC),
        ("write", errno.ENOSPC),
        ("write", errno.EDQUOT),
        ("fsync", errno.EIO),
        ("rename", errno.EROFS),
    ],
)
def test_after_a_failure_the_old_file_stands_and_nothing_is_left_behind(
    opened: Store,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(number))
        with pytest.raises(StoreError) as caught:
            opened.write("state", NEW)
    assert str(caught.value) == f"{directory}/state: {os.strerror(number)}"
    assert contents(directory) == {"state": OLD}


def test_half_a_file_is_not_left_behind(
    opened: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    room = [3]

    def until_full(descriptor: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[: room.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", until_full)
        with pytest.raises(StoreError, match="No space left"):
            opened.write("state", NEW)
    assert contents(directory) == {"state": OLD}


def test_a_signal_in_the_middle_leaves_nothing_behind(
    opened: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(BaseException):
        pass

    def stop(_descriptor: int) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(Stopped):
            opened.write("state", NEW)
    assert contents(directory) == {"state": OLD}


def test_after_a_failure_the_next_write_may_succeed(
    opened: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC))
        with pytest.raises(StoreError):
            opened.write("state", NEW)
    opened.write("state", NEW)
    assert contents(directory) == {"state": NEW}


def test_a_directory_that_may_not_be_written_is_an_error(
    opened: Store, directory: Path
) -> None:
    directory.chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:  # modes do not stop root
            os.seteuid(NOBODY)
        with pytest.raises(StoreError, match="Permission denied"):
            opened.write("state", NEW)
    finally:
        os.seteuid(user)
        directory.chmod(0o755)
    assert contents(directory) == {"state": OLD}


MOUNTED = """
import sys
from scw_signal.errors import StoreError
from scw_signal.store import Store
store = Store(sys.argv[1])
for data in (b"old", b"x" * 100_000):
    try:
        store.write("state", data)
    except StoreError as error:
        print(error)
"""


def mounted(where: Path, options: str) -> str:
    """Write a small and a large file to a file system, and return what is printed."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        pytest.skip("file systems are mounted here by unshare(1), which is not there")
    unshare = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make a mount namespace here")
    where.mkdir()
    script = 'mount -t tmpfs -o "$1" none "$2" && "$3" -c "$4" "$2" && ls -A "$2"'
    return subprocess.run(
        [*unshare, "sh", "-c", script, "sh", options, where, sys.executable, MOUNTED],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(Path(scw_signal.__file__).parent.parent),
        },
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
        text=True,
    ).stdout


def test_on_a_full_disk_the_old_file_stands(directory: Path) -> None:
    assert mounted(directory, "size=16k") == (
        f"{directory}/state: No space left on device\nstate\n"
    )


def test_on_a_file_system_mounted_read_only_each_write_is_an_error(
    directory: Path,
) -> None:
    assert mounted(directory, "ro") == f"{directory}/state: Read-only file system\n" * 2


# Opening the directory.


def test_a_missing_directory_is_made(directory: Path) -> None:
    opened = Store(str(directory))
    opened.close()
    assert directory.is_dir()
    assert opened.created


def test_a_directory_that_is_there_is_taken(directory: Path) -> None:
    directory.mkdir()
    (directory / "other").write_bytes(b"stays")
    opened = Store(str(directory))
    opened.close()
    assert not opened.created
    assert contents(directory) == {"other": b"stays"}


def a_file(path: Path) -> None:
    path.write_bytes(b"")


def a_link_to_a_directory(path: Path) -> None:
    path.with_name("elsewhere").mkdir()
    path.symlink_to(path.with_name("elsewhere"))


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize("plant", [a_file, a_link_to_a_directory, a_dangling_link])
def test_only_a_real_directory_is_opened(
    directory: Path, plant: Callable[[Path], None]
) -> None:
    plant(directory)
    before = sorted(directory.parent.rglob("*"))
    open_before = descriptors()
    with pytest.raises(StoreError) as caught:
        Store(str(directory))
    assert str(caught.value).startswith(f"{directory}: ")
    assert sorted(directory.parent.rglob("*")) == before
    assert descriptors() == open_before


def test_only_the_directory_itself_is_made_and_none_above_it(directory: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        Store(str(directory / "run"))
    assert not directory.exists()


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "\udcff\ud800"])
def test_an_impossible_name_is_an_error(name: str) -> None:
    with pytest.raises(StoreError):
        Store(name)


def test_the_directory_is_not_handed_to_other_programs(opened: Store) -> None:
    assert not os.get_inheritable(opened._descriptor)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that records the calls of fchown(2)."""
    given: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "fchown", lambda *arguments: given.append(arguments))
    return given


def test_a_directory_that_was_made_here_can_be_given_away(
    opened: Store, given: list[tuple[int, ...]]
) -> None:
    opened.chown(123, 456)
    assert given == [(opened._descriptor, 123, 456)]


def test_a_directory_that_existed_before_is_not_given_away(
    directory: Path, given: list[tuple[int, ...]]
) -> None:
    directory.mkdir()
    found = Store(str(directory))
    found.chown(123, 456)
    found.close()
    assert given == []


def test_the_usual_directory_is_given_away_even_if_it_existed(
    directory: Path, given: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RUN_DIRECTORY", str(directory))
    directory.mkdir()
    found = Store(str(directory))
    found.chown(123, 456)
    found.close()
    assert [ids for _, *ids in given] == [[123, 456]]


# Reading.


def test_a_file_is_read_as_text(opened: Store, directory: Path) -> None:
    text = "café\n" * 500_000
    opened.write(store.METADATA_FLAT, text.encode())
    assert store.read(str(directory), store.METADATA_FLAT) == text


def test_what_cannot_be_read_as_text_is_none(directory: Path, opened: Store) -> None:
    opened.write("binary", b"\xff\xfe")
    (directory / "folder").mkdir()
    (directory / "nowhere").symlink_to("missing")
    for name in ("missing", "binary", "folder", "nowhere", "a\0b"):
        assert store.read(str(directory), name) is None
    assert store.read(str(directory / "missing"), "state") is None


def test_reading_is_not_held_up_by_a_fifo(opened: Store, directory: Path) -> None:
    assert opened.created
    os.mkfifo(directory / "fifo")
    assert store.read(str(directory), "fifo") is None


def test_a_file_larger_than_the_limit_is_not_read(
    opened: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "READ_LIMIT", len(NEW))
    opened.write("state", NEW)
    assert store.read(str(directory), "state") == NEW.decode()
    opened.write("state", NEW + b"x")
    assert store.read(str(directory), "state") is None
