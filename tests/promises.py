"""What each promise of pledge(2) allows, in terms of Linux's system calls.

This is the project's reading of the manual page and of kern_pledge.c: for each
system call in a trace, the promise that it needs, or None if no promise that the
agent makes would allow it. The table marks what only glibc does, and OpenBSD's
libc does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NamedTuple

# Memory, time, threads, signals, descriptors that are open already.
STDIO = frozenset(
    """
    read write readv writev pread64 pwrite64 close lseek fstat fcntl dup dup2 dup3
    pipe pipe2 socketpair poll ppoll select pselect6 epoll_create1 epoll_wait
    sendto recvfrom sendmsg sendmmsg recvmsg recvmmsg shutdown fsync ftruncate
    mmap mprotect munmap mremap brk madvise futex sched_yield
    clone clone3 set_robust_list rseq exit exit_group restart_syscall gettid getpid
    getppid getuid geteuid getgid getegid getgroups getrlimit prlimit64 getrusage
    wait4 close_range
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack rt_sigsuspend
    getrandom umask uname kill tgkill sysinfo
    """.split()
)
# Which processors there are: glibc's malloc asks when a thread first allocates.
# OpenBSD's malloc asks nothing.
GLIBC = frozenset({"sched_getaffinity"})
SOCKETS = frozenset(
    "socket connect bind getsockname getpeername getsockopt setsockopt".split()
)
CREATE = frozenset({"rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir"})
LOOK = frozenset(
    {"newfstatat", "stat", "lstat", "statx", "access", "readlink", "chdir", "getcwd"}
)
# What a call needs, whatever its arguments.
ALWAYS = {
    **dict.fromkeys(STDIO | GLIBC, "stdio"),
    **dict.fromkeys(("fork", "vfork", "setsid", "setpgid"), "proc"),
    "execve": "exec",
    "getdents64": "rpath",  # of a directory that is open already
}

# What a call needs if its arguments match.
BY_ARGUMENTS = (
    ("mmap mprotect", r"PROT_EXEC", "prot_exec"),
    ("clone clone3", r"^(?!.*CLONE_THREAD)", "proc"),
    ("recvmsg recvmmsg", r"SCM_RIGHTS", "recvfd"),
    ("sendmsg sendmmsg", r"SCM_RIGHTS", "sendfd"),
    ("newfstatat", r"AT_EMPTY_PATH", "stdio"),
    # From 3.14 on, Python tells the kernel the names of threads: setthrname(2).
    ("prctl", r"^PR_SET_NAME\b", "stdio"),
)

# Always allowed on a socket: pledge_sockopt() in kern_pledge.c. inet allows
# every option of the socket level.
SOCKOPT = re.compile(r"SOL_SOCKET, SO_(ERROR|RCVBUF)\b|SOL_TCP, TCP_NODELAY\b")

# Always allowed; isatty(3) is an ioctl in glibc only (TCGETS, or TCGETS2 in newer
# ones), and in OpenBSD's libc it is fcntl(2) with F_ISATTY.
IOCTL = re.compile(r"\b(FIONBIO|FIONREAD|FIOCLEX|TCGETS2?)\b")

# Files that dns allows, whatever is unveiled; only glibc reads the others.
RESOLVER = re.compile(
    r'"/etc/(resolv\.conf|hosts|services|protocols)"'
    r'|"/etc/(nsswitch|host|gai)\.conf"|"/(var/)?run/(nscd|systemd)/|"/etc/ld\.so'
)


class Call(NamedTuple):
    """One system call of a trace."""

    name: str
    arguments: str
    thread: int = 0
    result: str = ""

    @property
    def makes_another(self) -> bool:
        """Whether its result is another process or thread."""
        names = {"clone", "clone3", "fork", "vfork"}
        return self.name in names and self.result.isdigit()

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


class Violation(NamedTuple):
    """A call that the promises in force at the time do not allow."""

    call: Call
    needs: str
    promised: str

    def __str__(self) -> str:
        return f"{self.call} needs {self.needs!r}, but promised is {self.promised!r}"


@dataclass
class Process:
    """What a process has promised and unveiled; None if it has not yet."""

    promised: str | None = None
    unveiled: str | None = None

    def mark(self, name: str, first: str, second: str) -> None:
        """Record a call of unveil or pledge."""
        if name == "pledge":
            self.promised = first
        else:
            self.unveiled = first.replace(":", "/") if second else ""


def calls(trace: str) -> list[Call]:
    """Read the calls of a trace that `strace -f -y -qq` wrote.

    If another thread interrupts a call, its place is where it begins.
    """
    found: list[Call] = []
    unfinished: dict[int, int] = {}
    for line in trace.splitlines():
        number, _, rest = line.partition(" ")
        thread, rest = int(number), rest.strip()
        match = re.match(r"(\w+)\((.*?)(?:\) += (.*)| <unfinished \.\.\.>)$", rest)
        if match:
            if match[3] is None:
                unfinished[thread] = len(found)
            found.append(Call(match[1], match[2], thread, match[3] or ""))
        elif thread in unfinished and (match := re.search(r"ed>(.*)\) += (.*)$", rest)):
            at = unfinished.pop(thread)
            arguments = found[at].arguments + match[1]
            found[at] = found[at]._replace(arguments=arguments, result=match[2])
    return found


def violations(trace: str) -> tuple[list[str], list[Violation]]:
    """Check a trace against the promises made in it.

    Returns the marks that tests/confined.py left, and the calls after the first
    pledge that were not allowed. Each process has its own promises: it begins with
    those of its parent, and loses them when it runs another program.
    """
    marks: list[str] = []
    found: list[Violation] = []
    processes: dict[int, Process] = {}
    for call in calls(trace):
        process = processes.setdefault(call.thread, Process())
        mark = re.search(r'"/mark\|(\w+)\|([^|]*)\|([^|"]*)"', call.arguments)
        if mark and mark[1] != "getaddrinfo":
            marks.append(" ".join(mark.groups()).rstrip())
            process.mark(*mark.groups())
            continue
        needs = {"dns"} if mark else needed(call, process.unveiled)
        promised = process.promised
        if promised is not None and not needs & {*promised.split()}:
            wanted = " or ".join(sorted(needs)) or "what is never promised"
            found.append(Violation(call, wanted, promised))
        if call.makes_another:
            shared = "CLONE_THREAD" in call.arguments
            processes[int(call.result)] = process if shared else replace(process)
        elif call.name == "execve" and call.result == "0":
            processes[call.thread] = Process()
    return marks, found


def needed(call: Call, unveiled: str | None) -> set[str]:
    """Return the promises that would each allow this call; empty if none would.

    `unveiled` is the one directory that is not hidden: "" if everything is hidden,
    None if nothing is.
    """
    name, arguments = call.name, call.arguments
    promise = _by_arguments(call) or ALWAYS.get(name)
    if promise:
        return {promise}
    if name == "ioctl":
        return {"stdio"} if IOCTL.search(arguments) else set()
    if name in SOCKETS:
        return _sockets(call)
    return {"dns"} if RESOLVER.search(arguments) else _files(call, unveiled)


def _by_arguments(call: Call) -> str | None:
    """Return what a call needs because of its arguments, if they matter."""
    name, arguments = call.name, call.arguments
    # A signal to another process or a group needs proc.
    if name == "kill" and arguments.partition(",")[0] not in {"0", str(call.thread)}:
        return "proc"
    for names, pattern, promise in BY_ARGUMENTS:
        if name in names.split() and re.search(pattern, arguments):
            return promise
    return None


def _sockets(call: Call) -> set[str]:
    """Return what a call on a socket needs; dns is enough for the resolver's."""
    name, arguments = call.name, call.arguments
    if name in {"getsockopt", "setsockopt"}:
        return {"stdio"} if SOCKOPT.search(arguments) else {"inet"}
    if name == "getpeername":
        return {"inet"}
    if name == "socket" and not re.match("AF_INET6?,", arguments):
        # glibc asks rtnetlink which families there are, and nscd for names.
        return {"dns"} if re.match("AF_(NETLINK|UNIX),", arguments) else set()
    return {"inet", "dns"}


def _files(call: Call, unveiled: str | None) -> set[str]:
    """Return what a call that names a file needs; empty for a hidden file."""
    name, arguments = call.name, call.arguments
    inside = f"<{unveiled}>" in arguments or f'"{unveiled}/' in arguments
    if unveiled is not None and not (unveiled and inside):
        return set()
    if name in CREATE or (name == "openat" and "O_CREAT" in arguments):
        return {"cpath"}
    if name == "openat" and re.search("O_WRONLY|O_RDWR", arguments):
        return {"wpath"}
    return {"rpath"} if name == "openat" or name in LOOK else set()
