"""packaging/openbsd: install and uninstall, each test in its own root directory.

These tests do not need OpenBSD. The shells are dash; mksh, which comes from pdksh as
OpenBSD's sh does; and oksh, a port of that sh, if it is installed. In a root's
usr/sbin, tests/openbsd/account stands in for OpenBSD's programs. The installed
commands run unchanged, in a mount namespace where the root's /usr/local replaces the
system's.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import tenacity
import urllib3

from installed import ENVIRONMENT, NOWHERE, PATIENCE
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOP = Path(__file__).resolve().parent.parent
STAND_IN = TOP / "tests/openbsd/account"
PROGRAMS = ("groupadd", "groupdel", "makewhatis", "rcctl", "useradd", "userdel")
SHELLS = ("mksh", "dash", *(["oksh"] if shutil.which("oksh") else []))

PACKAGES = ("scw_signal", "vendor/urllib3", "vendor/tenacity")

SCRIPTS = "packaging/openbsd"
TREE = "usr/local/libexec/scw_signal"
COMMANDS = (
    "scw-metadata", "scw-metadata-json", "scw-signal-state", "scw-signald",
    "scw-userdata",
)  # fmt: skip
OUTSIDE = {
    "etc/rc.d/scw_signal": 0o555,
    **{f"usr/local/bin/{command}": 0o755 for command in COMMANDS},
    "usr/local/man/man1/scw-metadata-json.1": 0o644,
    "usr/local/man/man1/scw-metadata.1": 0o644,
    "usr/local/man/man8/scw-signal-state.8": 0o644,
    "usr/local/man/man8/scw-signald.8": 0o644,
    "usr/local/man/man8/scw-userdata.8": 0o644,
    **{
        f"usr/local/share/{place}": 0o644
        for place in (
            *(f"bash-completion/completions/{command}" for command in COMMANDS),
            *(f"fish/vendor_completions.d/{command}.fish" for command in COMMANDS),
            "scw_signal/scw-signal.ksh",
            "zsh/site-functions/_scw-signal",
        )
    },
}
MADE = [
    "groupadd -g 999 _scwsignal",
    (
        "useradd -u 999 -g _scwsignal -L daemon -c scw-signal agent"
        " -d /nonexistent -s /sbin/nologin _scwsignal"
    ),
]
UNMADE = ["userdel _scwsignal", "groupdel _scwsignal"]

# Aliases of OpenBSD's sh. A function cannot have the name of one.
ALIASES = {
    "autoload", "functions", "hash", "history", "integer", "local", "login", "nohup",
    "r", "stop",
}  # fmt: skip

# The real interpreter: a virtual environment's would look for that environment.
PYTHON = Path(sys.executable).resolve()


class Result(NamedTuple):
    """The exit status and the output of a script."""

    status: int
    out: str
    err: str


class Root:
    """A system to install on: a directory with all that install needs."""

    def __init__(self, path: Path, release: Path, shell: str) -> None:
        self.path = path
        self.release = release
        self.shell = shell
        self.scratch = path.with_name("scratch")
        self.stubs = path.with_name("stubs")
        self.before: list[str] = []  # the words before each command
        for directory in ("etc/rc.d", "usr/sbin", "usr/local/bin", "var/run"):
            (path / directory).mkdir(parents=True)
        self.scratch.mkdir()
        self.stubs.mkdir()
        (self.stubs / "sh").symlink_to(shell)  # install runs another script with it
        for name in PROGRAMS:
            shutil.copy(STAND_IN, path / "usr/sbin" / name)
        for name in ("passwd", "group"):
            (path / "etc" / name).write_text("root:*:0:\n")
        self.python = path / "usr/local/bin/python3"
        self.python.symlink_to(PYTHON)
        self._asked = path / "asked"

    def run(
        self,
        script: str,
        *words: str,
        env: Mapping[str, str] | None = None,
        umask: int = 0o022,
        kill: bool = False,
    ) -> Result:
        """Run the release's install or uninstall on this root.

        With `kill` it gets its own process group, so that it can be killed.
        """
        done = subprocess.run(
            [*self.before, self.shell, self.release / SCRIPTS / script, *words],
            env={**self.environment(), **(env or {})},
            umask=umask,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            start_new_session=kill,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, script: str) -> subprocess.Popen[bytes]:
        """Start install or uninstall."""
        return subprocess.Popen(
            [self.shell, self.release / SCRIPTS / script],
            env=self.environment(),
            stdout=subprocess.DEVNULL,
        )

    def environment(self) -> dict[str, str]:
        """Return the environment of the scripts."""
        return {
            "PATH": f"{self.stubs}:{ENVIRONMENT['PATH']}",
            "TMPDIR": str(self.scratch),
            "DESTDIR": str(self.path),
            "LIVE": "yes",
        }

    def must(self, script: str) -> str:
        """Run a script that must succeed without an error; return what it printed."""
        result = self.run(script)
        assert (result.status, result.err) == (0, "")
        return result.out

    def asked(self) -> list[str]:
        """Return the calls of the system's programs since the last time.

        Calls of makewhatis are left out.
        """
        lines = self._asked.read_text().splitlines() if self._asked.exists() else []
        self._asked.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("makewhatis")]

    def contents(self) -> dict[str, tuple[int, bytes | str]]:
        """Return each path with its mode, and a file's bytes or a link's target."""
        found: dict[str, tuple[int, bytes | str]] = {}
        for path in self.path.rglob("*"):
            what: bytes | str = "directory"
            if path.is_symlink():
                what = str(path.readlink())
            elif path.is_file():
                what = path.read_bytes()
            found[str(path.relative_to(self.path))] = (path.lstat().st_mode, what)
        del found["usr/local/bin/python3"]
        found.pop("asked", None)
        return found

    def stub(self, name: str, body: str) -> None:
        """Put a script in place of a program in PATH."""
        (self.stubs / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.stubs / name).chmod(0o755)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an unpacked release, whose packages contain no code."""
    # Users may unpack it in a directory with a blank in its name.
    return unpacked(tmp_path_factory.mktemp("a release"))


def unpacked(directory: Path) -> Path:
    for part in ("packaging", "rc.d"):
        shutil.copytree(TOP / part, directory / part)
    shutil.copy(TOP / "LICENSE", directory)
    for package in PACKAGES:
        (directory / package).mkdir(parents=True)
        (directory / package / "__init__.py").write_text(f"# {package}\n")
    return directory


def fill(release: Path) -> None:
    """Copy the code into a release."""
    origins = (TOP / "scw_signal/x", Path(urllib3.__file__), Path(tenacity.__file__))
    for package, origin in zip(PACKAGES, origins, strict=True):
        shutil.rmtree(release / package)
        no_cache = shutil.ignore_patterns("__pycache__")
        shutil.copytree(origin.parent, release / package, ignore=no_cache)


@pytest.fixture
def root(tmp_path: Path, release: Path, shell: str) -> Root:
    return Root(tmp_path / "root", release, shell)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return found(request.param)


@pytest.fixture
def own_release(root: Root, tmp_path: Path) -> Path:
    """Return a release that the test may change, and that the root installs."""
    root.release = tmp_path / "own release"
    return unpacked(root.release)


def found(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed here")
    return path


# What install makes.


def test_each_file_is_where_it_belongs(root: Root) -> None:
    before = root.contents()
    root.must("install")
    made = {
        path: mode & 0o777
        for path, (mode, what) in root.contents().items()
        if path not in before and what != "directory" and not path.startswith(TREE)
    }
    assert made == OUTSIDE


def test_the_tree_holds_the_package_and_the_libraries(
    root: Root, own_release: Path
) -> None:
    fill(own_release)
    # A compiled file of the release must not be installed.
    (own_release / "scw_signal/__pycache__").mkdir()
    (own_release / "scw_signal/__pycache__/agent.cpython-399.pyc").write_text("")
    root.must("install")
    assert not [path for path in root.contents() if "399" in path]
    shutil.rmtree(own_release / "scw_signal/emulator")  # no server needs it
    for package in PACKAGES:
        for file in (own_release / package).rglob("*.py"):
            name = file.relative_to(own_release / package).as_posix()
            installed = root.path / TREE / Path(package).name / name
            assert installed.read_bytes() == file.read_bytes()


def test_everybody_may_read_it_whatever_the_umask(root: Root) -> None:
    root.must("install")
    usual = modes(root)
    root.must("uninstall")
    assert root.run("install", umask=0o077).status == 0
    assert modes(root) == usual


def modes(root: Root) -> dict[str, int]:
    return {path: mode for path, (mode, _) in root.contents().items()}


def test_the_account_is_made_as_ports_make_theirs(root: Root) -> None:
    root.must("install")
    assert root.asked() == MADE


def test_it_ends_with_what_to_do_next(root: Root) -> None:
    assert root.must("install").endswith("    rcctl enable scw_signal\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_looks_in_the_tree_first_and_imports_no_more(
    root: Root, command: str
) -> None:
    root.must("install")
    text = (root.path / "usr/local/bin" / command).read_text()
    shebang, _, rest = text.partition("\n")
    assert shebang == "#!/usr/local/bin/python3 -I"
    statements = [ast.unparse(statement) for statement in ast.parse(rest).body[1:]]
    module = command.removeprefix("scw-").replace("-", "_")
    assert statements == [
        "import sys",
        "sys.path.insert(0, '/usr/local/libexec/scw_signal')",
        "from scw_signal.cli.process import run",
        f"run('{module}')",
    ]


def test_all_is_compiled_for_the_installed_python(root: Root) -> None:
    root.must("install")
    for source in (root.path / TREE).rglob("*.py"):
        compiled = Path(cache_from_source(str(source))).read_bytes()
        # PEP 552: magic, flags, time of the source, size of the source.
        flags, time, size = memoryview(compiled[4:16]).cast("I")
        status = source.stat()
        assert (flags, time, size) == (0, int(status.st_mtime), status.st_size)
        assert f"/{source.relative_to(root.path)}".encode() in compiled


def test_nothing_else_is_left_behind(root: Root) -> None:
    root.must("install")
    assert not list(root.scratch.iterdir())
    assert not [path for path in root.contents() if path.endswith((".new", ".old"))]


def test_install_and_uninstall_update_the_index_of_the_manuals(root: Root) -> None:
    manuals = f"{root.path}/usr/local/man"
    pages = " ".join(
        f"{root.path}/{path}" for path in OUTSIDE if path.startswith("usr/local/man")
    )
    root.must("install")
    root.must("uninstall")
    asked = (root.path / "asked").read_text().splitlines()
    assert [line for line in asked if line.startswith("makewhatis")] == [
        f"makewhatis -d {manuals} {pages}",
        f"makewhatis -u {manuals} {pages}",
    ]


# -n.


def test_with_n_install_says_all_that_it_would_do_and_does_nothing(root: Root) -> None:
    before = root.contents()
    result = root.run("install", "-n")
    assert (result.status, result.err) == (0, "")
    assert root.contents() == before
    assert root.asked() == []
    assert result.out.splitlines() == [
        f"would {line}"
        for line in root.must("install").splitlines()
        if not line.startswith(("scw-signal is", "    "))
    ]
    for path in (TREE, *OUTSIDE):
        assert f"would install /{path}" in result.out


def test_with_n_uninstall_says_all_that_it_would_do_and_does_nothing(
    root: Root,
) -> None:
    root.must("install")
    before = root.contents()
    root.asked()
    result = root.run("uninstall", "-n")
    assert (result.status, result.err) == (0, "")
    assert root.contents() == before
    assert root.asked() == []
    lines = [f"would {line}" for line in root.must("uninstall").splitlines()]
    assert result.out.splitlines() == lines


def test_with_n_it_leaves_the_files_of_another_install_alone(root: Root) -> None:
    (root.path / f"{TREE}.new").mkdir(parents=True)
    (root.path / "usr/local/bin/.scw-signald.new").write_text("")
    before = root.contents()
    assert root.run("install", "-n").status == 0
    assert root.contents() == before


# Installing again, and installing a newer release.


def test_installing_again_changes_nothing(root: Root) -> None:
    root.must("install")
    before = source_only(root)
    root.asked()
    root.must("install")
    assert source_only(root) == before
    assert root.asked() == []


def source_only(root: Root) -> dict[str, tuple[int, bytes | str]]:
    """Return the contents without compiled files, since those contain dates."""
    return {
        path: what
        for path, what in root.contents().items()
        if "__pycache__" not in path
    }


def test_a_newer_release_replaces_what_the_older_one_had(
    root: Root, release: Path, own_release: Path
) -> None:
    (own_release / "scw_signal/former").mkdir()
    (own_release / "scw_signal/former/former.py").write_text("")
    (own_release / "packaging/man/scw-former.8").write_text("")
    (own_release / "packaging/bin/scw-former").write_text("#!python\n")
    (own_release / "rc.d/scw_signal").write_text("# as it was\n")
    root.must("install")
    root.release = release
    root.must("install")
    assert not [path for path in root.contents() if "former" in path]
    service = (root.path / "etc/rc.d/scw_signal").read_text()
    assert service == (release / "rc.d/scw_signal").read_text()


def test_uninstall_removes_what_an_earlier_install_made(root: Root) -> None:
    before = root.contents()
    root.must("install")
    root.must("install")
    root.asked()
    root.must("uninstall")
    assert root.contents() == before
    assert root.asked()[-2:] == UNMADE


def test_with_n_a_newer_release_shows_what_it_would_remove(
    root: Root, release: Path, own_release: Path
) -> None:
    (own_release / "packaging/man/scw-former.8").write_text("")
    root.must("install")
    root.release = release
    result = root.run("install", "-n")
    assert "would remove /usr/local/man/man8/scw-former.8\n" in result.out
    assert (root.path / "usr/local/man/man8/scw-former.8").exists()


# uninstall.


def test_uninstall_leaves_the_system_as_it_was(root: Root) -> None:
    before = root.contents()
    root.must("install")
    root.asked()
    root.must("uninstall")
    assert root.contents() == before
    stopped = ["rcctl stop scw_signal", "rcctl disable scw_signal"]
    assert root.asked() == [*stopped, *UNMADE]


def test_uninstall_removes_what_another_python_compiled_and_the_agent_left(
    root: Root,
) -> None:
    before = root.contents()
    root.must("install")
    cache = root.path / TREE / "scw_signal/__pycache__"
    (cache / "agent.cpython-399.pyc").write_text("")
    (root.path / "var/run/scw_signal").mkdir()
    (root.path / "var/run/scw_signal/state").write_text("")
    root.must("uninstall")
    assert root.contents() == before


def test_uninstalling_again_is_harmless(root: Root) -> None:
    root.must("install")
    root.must("uninstall")
    root.asked()
    assert root.must("uninstall").startswith("nothing to remove")
    assert root.asked() == []


def test_an_account_that_was_there_before_stays(root: Root) -> None:
    for name in ("passwd", "group"):
        with (root.path / "etc" / name).open("a") as file:
            file.write("_scwsignal:\n")
    before = root.contents()
    root.must("install")
    root.must("uninstall")
    assert root.contents() == before
    asked = root.asked()
    assert not {*MADE, *UNMADE} & set(asked)


def test_uninstall_removes_the_directories_of_the_agent(root: Root) -> None:
    (root.path / "var/db").mkdir()
    before = root.contents()
    root.must("install")
    for state in ("var/run/scw_signal", "var/db/scw_signal"):
        (root.path / state).mkdir()
        (root.path / state / "left").write_text("by the agent\n")
    root.must("uninstall")
    assert root.contents() == before


def test_the_service_is_stopped_and_disabled_before_anything_is_removed(
    root: Root,
) -> None:
    root.must("install")
    root.asked()
    out = root.must("uninstall")
    assert out.startswith("stop and disable the service\n")
    assert root.asked()[:2] == ["rcctl stop scw_signal", "rcctl disable scw_signal"]


@pytest.mark.parametrize(
    ("taken", "number"), [((), 999), ((999,), 998), ((1000, 999, 998, 500), 997)]
)
def test_the_user_gets_the_highest_free_number_below_1000(
    root: Root, taken: tuple[int, ...], number: int
) -> None:
    for name, which in (("passwd", taken[::2]), ("group", taken[1::2])):
        with (root.path / "etc" / name).open("a") as file:
            file.writelines(f"user{number}:*:{number}:\n" for number in which)
    root.must("install")
    group, user = root.asked()
    assert group == f"groupadd -g {number} _scwsignal"
    assert user.startswith(f"useradd -u {number} ")


def test_without_a_free_number_install_is_refused(root: Root) -> None:
    with (root.path / "etc/passwd").open("a") as file:
        file.writelines(f"user{number}:*:{number}:\n" for number in range(500, 1000))
    assert refusal(root) == (
        "install: no number below 1000 is free for the user _scwsignal\n"
    )


def test_files_of_others_stay(root: Root) -> None:
    others = {"usr/local/bin/other", "usr/local/man/man8/other.8", "etc/rc.d/other"}
    (root.path / "usr/local/man/man8").mkdir(parents=True)
    for path in others:
        (root.path / path).write_text("not ours\n")
    before = root.contents()
    root.must("install")
    inside = f"{TREE}/other"
    (root.path / inside).write_text("not ours either\n")
    out = root.must("uninstall")
    assert "kept, because not everything in it is from install: /" + TREE in out
    kept = set(root.contents()) - set(before)
    assert kept == {inside, TREE, str(Path(TREE).parent)}


def test_a_file_that_was_changed_stays_and_is_named(root: Root) -> None:
    root.must("install")
    service = root.path / "etc/rc.d/scw_signal"
    service.chmod(0o755)
    service.write_text("changed\n")
    out = root.must("uninstall")
    assert "it was changed since it was installed: /etc/rc.d/scw_signal\n" in out
    assert service.read_text() == "changed\n"


def test_a_file_of_the_tree_that_was_changed_stays(root: Root) -> None:
    root.must("install")
    module = root.path / TREE / "scw_signal/__init__.py"
    module.write_text("changed\n")
    assert "kept, because it was changed" in root.must("uninstall")
    assert list(files(root)).count(f"{TREE}/scw_signal/__init__.py") == 1
    assert not [path for path in files(root) if path.startswith(f"{TREE}/urllib3")]


# What is in the way.


@pytest.mark.parametrize(
    "way", ["file", "link", "directory", "changed", "moved", "in the tree"]
)
def test_it_replaces_nothing_that_is_not_its_own(root: Root, way: str) -> None:
    command = root.path / "usr/local/bin/scw-metadata"
    if way == "file":
        command.write_text("the package's\n")
    elif way == "link":
        command.symlink_to("elsewhere")
    elif way == "directory":
        command.mkdir()
    elif way == "changed":
        root.must("install")
        command.write_text("changed\n")
    elif way == "moved":
        root.must("install")
        command.symlink_to(command.rename(root.path / "elsewhere"))
    else:
        command = root.path / TREE / "scw_signal/__init__.py"
        command.parent.mkdir(parents=True)
        command.write_text("")
    before = root.contents()
    root.asked()
    result = root.run("install")
    assert result.status == 1
    name = command.relative_to(root.path)
    assert result.err == (
        f"install: not installed from here, or changed since; move it away: /{name}\n"
    )
    assert root.contents() == before
    assert root.asked() == []


# What goes wrong half-way.


STEPS = ("cp", "mkdir", "mv", "rm", "rmdir")
ACCOUNT_STEPS = ("groupadd", "useradd", "rcctl", "userdel", "groupdel")
LANES = 8  # test cases that share the steps
STRIDE = 5  # most steps just move a file, so only make soak tries each


def kill_at(root: Root, number: int) -> None:
    """Have a script killed just before its nth change of the root; 0 for never.

    Changes by the programs named above are counted.
    """
    count = root.path.with_name("count")
    count.write_text("")
    step = f'echo >>"{count}"; [ "$(wc -l <"{count}")" -ne {number} ] || kill -9 0'
    for program in STEPS:
        root.stub(
            program,
            f'case "$*" in *{root.path}/*) {step} ;; esac\nexec {found(program)} "$@"',
        )
    for program in ACCOUNT_STEPS:
        text = STAND_IN.read_text()
        text = text.replace("\nroot=", f"\n{step}\nroot=") if number else text
        (root.path / "usr/sbin" / program).write_text(text)


def let_live(root: Root) -> None:
    """Let scripts run to their end again."""
    kill_at(root, 0)
    for program in STEPS:
        (root.stubs / program).unlink()


class Case(NamedTuple):
    """A root to test on, and the contents to compare it with."""

    root: Root
    nothing: dict[str, tuple[int, bytes | str]]
    whole: dict[str, tuple[int, bytes | str]]
    stride: int  # from one step that is tried to the next


@pytest.fixture
def case(
    tmp_path: Path,
    release: Path,
    soaking: bool,  # noqa: FBT001 # a fixture
) -> Case:
    root = Root(tmp_path / "root", release, found("dash"))
    nothing = root.contents()
    root.must("install")
    whole = source_only(root)
    root.must("uninstall")
    assert root.contents() == nothing
    return Case(root, nothing, whole, 1 if soaking else STRIDE)


def lane(case: Case, first: int) -> Iterator[tuple[bool, int]]:
    """Return the steps of a lane, each with whether to install again after it."""
    numbers = itertools.count(first * case.stride, LANES * case.stride)
    return zip(itertools.cycle([False, True]), numbers)


def interrupted(root: Root, script: str, number: int) -> bool:
    """Kill a script before its nth step; tell whether it had that many."""
    kill_at(root, number)
    status = root.run(script, kill=True).status
    let_live(root)
    assert status in {0, -9}
    return status == -9


@pytest.mark.parametrize("first", range(1, LANES + 1))
def test_install_killed_at_any_step_can_be_run_again_or_undone(
    case: Case, first: int
) -> None:
    root, nothing, whole, _ = case
    for again, number in lane(case, first):
        if not interrupted(root, "install", number):
            break
        if again:
            root.must("install")
            assert source_only(root) == whole, number
        root.must("uninstall")
        assert root.contents() == nothing, number
    assert number > LANES * case.stride


@pytest.mark.parametrize("first", range(1, LANES + 1))
def test_a_newer_release_killed_at_any_step_can_be_run_again_or_undone(
    case: Case, tmp_path: Path, first: int
) -> None:
    root, nothing, whole, _ = case
    newer, older = root.release, unpacked(tmp_path / "older release")
    (older / "vendor/former").mkdir()
    for file in ("scw_signal/former.py", "vendor/former/__init__.py"):
        (older / file).write_text("")
    for path in (*(older / "packaging/man").iterdir(), older / "rc.d/scw_signal"):
        path.write_text("as it was\n")
    (older / "packaging/man/scw-former.8").write_text("")
    for again, number in lane(case, first):
        root.release = older
        root.must("install")
        root.release = newer
        if not interrupted(root, "install", number):
            break
        if again:
            root.must("install")
            assert source_only(root) == whole, number
        root.must("uninstall")
        assert root.contents() == nothing, number
    assert number > LANES * case.stride


@pytest.mark.parametrize("first", range(1, LANES + 1))
def test_uninstall_killed_at_any_step_can_be_run_again_or_undone(
    case: Case, first: int
) -> None:
    root, nothing, whole, _ = case
    for again, number in lane(case, first):
        root.must("install")
        if not interrupted(root, "uninstall", number):
            break
        if again:
            root.must("install")
            assert source_only(root) == whole, number
        root.must("uninstall")
        assert root.contents() == nothing, number
    assert number > LANES * case.stride


def test_of_two_at_once_the_second_is_refused_and_the_first_finishes(
    case: Case,
) -> None:
    root, _, whole, _ = case
    started, go_on = (root.path.with_name(name) for name in ("started", "go-on"))
    for fifo in (started, go_on):
        os.mkfifo(fifo)
    root.stub(
        "mv",
        f'[ -e "{go_on}" ] && echo >"{started}" && read -r _ <"{go_on}" &&'
        f' rm "{go_on}"\nexec {found("mv")} "$@"',
    )
    with root.start("install") as first:
        started.read_text()
        (root.stubs / "mv").unlink()
        for script in ("install", "uninstall"):
            result = root.run(script)
            assert (result.status, result.out) == (1, "")
            assert result.err == f"{script}: another install or uninstall is running\n"
        go_on.write_text("\n")
        assert first.wait(PATIENCE) == 0
    assert source_only(root) == whole


def test_a_copy_that_fails_leaves_no_file_behind(root: Root) -> None:
    before = set(files(root))
    fails = 'echo "cp: no space left on device" >&2; exit 1'
    last = "for last; do :; done; case $last in *scw-signald.8.new)"
    root.stub("cp", f'{last} {fails} ;; esac; exec {found("cp")} "$@"')
    result = root.run("install")
    assert (result.status, result.err) == (1, "cp: no space left on device\n")
    assert set(files(root)) == before
    assert root.asked() == []


def files(root: Root) -> Iterator[str]:
    return (path for path, (_, what) in root.contents().items() if what != "directory")


@pytest.mark.parametrize("program", ["groupadd", "useradd"])
def test_if_the_account_cannot_be_made_it_fails_and_can_be_run_again(
    root: Root, program: str
) -> None:
    before = root.contents()
    (root.path / "broken").mkdir()
    (root.path / "broken" / program).touch()
    result = root.run("install")
    assert (result.status, result.err) == (1, f"{program}: told to fail\n")
    shutil.rmtree(root.path / "broken")
    root.must("install")
    root.must("uninstall")
    assert root.contents() == before


# A view of the file system that only one command has.


def namespace(mounts: str) -> list[str]:
    """Return the words that run a command with these mounts."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    unshare = [found("unshare"), "--mount", *user]
    probe = subprocess.run(
        [*unshare, "true"], capture_output=True, text=True, check=False
    )
    if probe.returncode != 0:
        pytest.skip(f"no mount namespaces here: {probe.stderr.strip()}")
    return [*unshare, "sh", "-c", f'{mounts} && exec "$@"', "sh"]


def bind(what: Path, where: Path | None = None) -> str:
    return shlex.join(["mount", "--bind", str(what), str(where or what)])


def freeze(where: Path) -> str:
    return shlex.join(["mount", "-o", "remount,bind,ro", str(where)])


# Refusals: one line, and nothing done.


def refusal(root: Root, **env: str) -> str:
    before = root.contents()
    result = root.run("install", env=env)
    assert (result.status, result.out) == (1, "")
    assert root.contents() == before
    assert root.asked() == []
    assert not list(root.scratch.iterdir())
    assert result.err.count("\n") == 1
    return result.err


def test_without_python_it_says_how_to_get_it(root: Root) -> None:
    root.python.unlink()
    # Root.contents() expects one.
    root.python.symlink_to("nowhere")
    assert refusal(root) == (
        "install: there is no /usr/local/bin/python3: pkg_add python%3\n"
    )


def test_an_old_python_is_refused_by_its_version(root: Root) -> None:
    root.python.unlink()
    root.python.write_text(
        # This Python tells install that it is an old one.
        "#!/bin/sh\n"
        f'exec {PYTHON} -I -c "import sys; sys.version_info = (3, 9, 18)\n$3" "$4"\n'
    )
    root.python.chmod(0o755)
    assert refusal(root) == (
        "install: /usr/local/bin/python3 is Python 3.9, and 3.10 is needed:"
        " pkg_add -u python%3\n"
    )


def test_a_python_that_does_not_run_is_refused(root: Root) -> None:
    root.python.unlink()
    root.python.write_text("#!/bin/sh\nexit 1\n")
    root.python.chmod(0o755)
    assert refusal(root) == (
        "install: /usr/local/bin/python3 does not run: pkg_add python%3\n"
    )


@pytest.mark.parametrize("library", ["urllib3", "tenacity"])
def test_without_the_libraries_it_says_make_vendor(
    root: Root, own_release: Path, library: str
) -> None:
    shutil.rmtree(own_release / "vendor" / library)
    shutil.copy(TOP / "scw_signal/libraries.py", own_release / "scw_signal")
    root.python.unlink()
    root.python.write_text(f'#!/bin/sh\nexec {PYTHON} -S "$@"\n')  # no libraries
    root.python.chmod(0o755)
    assert refusal(root) == (
        "install: /usr/local/bin/python3: there is no urllib3, and urllib3 >= 1.26.18,"
        " < 3 is needed; there is no tenacity, and tenacity >= 8.5, < 10 is needed:"
        " make vendor install\n"
    )


def test_a_directory_that_cannot_be_written_is_named(root: Root) -> None:
    (root.path / "usr/local/libexec").write_text("")
    assert refusal(root) == (
        f"install: cannot write to {root.path}/usr/local/libexec\n"
    )


def test_a_file_system_that_is_mounted_read_only_is_named(root: Root) -> None:
    root.before = namespace(f"{bind(root.path / 'etc')} && {freeze(root.path / 'etc')}")
    assert refusal(root) == f"install: cannot write to {root.path}/etc/rc.d\n"


def test_destdir_must_be_a_directory(root: Root) -> None:
    assert refusal(root, DESTDIR="/nonexistent") == (
        "install: DESTDIR is not a directory: /nonexistent\n"
    )


# Without DESTDIR the scripts work on this machine. So these tests stub uname(1) and
# id(1), so that the scripts stop before they change anything.


@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_another_system_is_refused(root: Root, script: str) -> None:
    root.stub("uname", "echo Plan9")
    root.stub("id", "echo 1000")
    assert root.run(script, env={"DESTDIR": ""}) == Result(
        1, "", f"{script}: this is for openbsd, not for Plan9\n"
    )


@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_a_user_other_than_root_is_refused(root: Root, script: str) -> None:
    root.stub("uname", "echo OpenBSD")
    root.stub("id", "echo 1000")
    assert root.run(script, env={"DESTDIR": ""}) == Result(
        1, "", f"{script}: only root can do this; with -n it shows what would be done\n"
    )


def test_every_user_may_see_what_would_be_done(root: Root) -> None:
    root.stub("uname", "echo OpenBSD")
    root.stub("id", "echo 1000")
    result = root.run("uninstall", "-n", env={"DESTDIR": ""})
    assert (result.status, result.err) == (0, "")


@pytest.mark.parametrize("words", [["-x"], ["operand"], ["-n", "operand"]])
@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_the_command_line_is_checked(root: Root, script: str, words: list[str]) -> None:
    result = root.run(script, *words)
    assert result.status == 2
    assert result.err.endswith(f"usage: {script} [-nu]\n")


@pytest.mark.parametrize("script", ["../systems.sub", "../stage.sub", "../install"])
def test_no_function_has_the_name_of_an_alias(script: str) -> None:
    text = (TOP / SCRIPTS / script).read_text()
    functions = set(re.findall(r"^(\w+)\(\)", text, re.MULTILINE))
    assert functions
    assert not functions & ALIASES


# The installed commands, unchanged.


def interpreter(minor: int) -> Path | None:
    """Return the path of Python 3.`minor`, if it is outside of /usr/local."""
    named = shutil.which(f"python3.{minor}")
    candidates = [
        *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3"),
        *([Path(named)] if named else []),
    ]
    for candidate in candidates:
        asked = subprocess.run(
            [candidate, "-I", "-c", "import sys; print(sys.executable)"],
            capture_output=True,
            text=True,
            check=False,
        )
        path = Path(asked.stdout.strip()).resolve()
        # The namespace hides what is in /usr/local.
        if asked.returncode == 0 and not path.is_relative_to("/usr/local"):
            return path
    return None


@pytest.fixture(scope="session")
def interpreters() -> dict[int, Path]:
    """Return the interpreters on this machine, in the order of their minor versions."""
    known = {minor: interpreter(minor) for minor in range(10, 16)}
    return {minor: path for minor, path in known.items() if path is not None}


@pytest.fixture
def system(root: Root, own_release: Path) -> Root:
    """Return a root whose release has the code, so that the commands run."""
    fill(own_release)
    return root


def ran(root: Root, *words: str, read_only: bool = False) -> Result:
    """Run an installed command, with the root's /usr/local as the system's."""
    show = bind(root.path / "usr/local", Path("/usr/local"))
    if read_only:
        show += f" && {freeze(Path('/usr/local'))}"
    done = subprocess.run(
        [*namespace(show), *words],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **NOWHERE},
        cwd=root.path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def works(root: Root, *, read_only: bool = False) -> None:
    """Check that the agent and two of the commands do their work."""
    run_dir = f"--run-dir={root.path}/var/run/scw_signal"
    with Emulator() as service:
        url = f"--url={service.url}"

        def run(*words: str) -> Result:
            return ran(root, *words, read_only=read_only)

        booted = run("scw-signald", "-d", "--no-dns", run_dir, url)
        assert booted.status == 0, booted.err
        assert "acknowledged" in booted.err
        assert "Warning" not in booted.err
        signalled = run("scw-signal-state", url, "booted")
        assert signalled == Result(0, "booted signal sent!\n", "")
        cached = run("scw-metadata", "--cached", run_dir, "state_detail")
        assert cached == Result(0, "booted\n", "")


def test_the_installed_commands_work(system: Root) -> None:
    system.must("install")
    works(system)


def test_the_current_directory_and_the_environment_are_ignored(system: Root) -> None:
    system.must("install")
    for name in ("scw_signal", "urllib3", "gc"):
        (system.path / f"{name}.py").write_text("raise SystemExit('trapped')")
    with Emulator() as service:
        words = ("scw-signal-state", f"--url={service.url}", "booted")
        trap = (f"PYTHONPATH={system.path}", "PYTHONSTARTUP=urllib3.py")
        assert ran(system, "env", *trap, *words).out == "booted signal sent!\n"


def test_it_survives_a_minor_upgrade_of_python(
    system: Root, interpreters: dict[int, Path]
) -> None:
    if len(interpreters) < 2:
        pytest.skip("there is but one of Python 3.10 to 3.15 here")
    oldest, *newer = sorted(interpreters)
    switch(system, interpreters[oldest])
    system.must("install")
    for minor in newer:
        switch(system, interpreters[minor])
        # At boot the agent cannot write here. So it must run without compiled code.
        works(system, read_only=True)
        assert compiled_for(system) == {f"cpython-3{oldest}"}
    system.must("install")
    assert compiled_for(system) == {f"cpython-3{newer[-1]}"}
    works(system)


def switch(root: Root, python: Path) -> None:
    root.python.unlink()
    root.python.symlink_to(python)


def compiled_for(root: Root) -> set[str]:
    """Return the tags of the interpreters that anything is compiled for."""
    return {path.name.split(".")[-2] for path in (root.path / TREE).rglob("*.pyc")}
