"""What each promise of pledge(2) allows, in terms of Linux's system calls.

The project's own reading of the manual page and of kern_pledge.c: for each
system call in a trace, the promise that it needs, or None where no promise that
the agent makes would allow it. Where glibc does what OpenBSD's libc does not,
the table says so.
"""

from __future__ import annotations

import re
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
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack rt_sigsuspend
    getrandom umask uname kill tgkill sysinfo
    """.split()
)
SOCKETS = frozenset(
    "socket connect bind getsockname getpeername getsockopt setsockopt".split()
)
CREATE = frozenset({"rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir"})
LOOK = frozenset({"newfstatat", "stat", "lstat", "statx", "access", "readlink"})

# Always allowed on a socket: pledge_sockopt() in kern_pledge.c. With inet, any
# option of the socket level is.
SOCKOPT = re.compile(r"SOL_SOCKET, SO_(ERROR|RCVBUF)\b|SOL_TCP, TCP_NODELAY\b")

# Always allowed; isatty(3) is an ioctl in glibc only, and in OpenBSD's libc it is
# fcntl(2) with F_ISATTY.
IOCTL = re.compile(r"\b(FIONBIO|FIONREAD|FIOCLEX|TCGETS)\b")

# Files that dns lets through, whatever is unveiled; the rest is glibc's own.
RESOLVER = re.compile(
    r'"/etc/(resolv\.conf|hosts|services|protocols)"'
    r'|"/etc/(nsswitch|host|gai)\.conf"|"/(var/)?run/(nscd|systemd)/|"/etc/ld\.so'
)


class Call(NamedTuple):
    """One system call of a trace."""

    name: str
    arguments: str

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


class Violation(NamedTuple):
    """A call that the promises of its moment do not allow."""

    call: Call
    needs: str
    promised: str

    def __str__(self) -> str:
        return f"{self.call} needs {self.needs!r}, but promised is {self.promised!r}"


def calls(trace: str) -> list[Call]:
    """Read the calls of a trace that `strace -f -y -qq` wrote."""
    found = []
    for line in trace.splitlines():
        # A call that another thread interrupted is counted where it begins.
        match = re.match(r"\d+ +(\w+)\((.*?)(?:\) += .*| <unfinished \.\.\.>)$", line)
        if match:
            found.append(Call(match[1], match[2]))
    return found


def violations(trace: str) -> tuple[list[str], list[Violation]]:
    """Hold a trace against the promises made in it.

    Returns the marks that tests/confined.py left, and the calls after the first
    pledge that were not allowed.
    """
    marks: list[str] = []
    unveiled, promised = "", None
    found = []
    for call in calls(trace):
        mark = re.search(r'"/mark\|(\w+)\|([^|]*)\|([^|"]*)"', call.arguments)
        if mark:
            if mark[1] == "unveil":
                unveiled = mark[2].replace(":", "/")
            elif mark[1] == "pledge":
                promised = mark[2]
            elif promised is not None and "dns" not in promised.split():
                found.append(Violation(Call("getaddrinfo", ""), "dns", promised))
            if mark[1] != "getaddrinfo":
                marks.append(" ".join(mark.groups()).rstrip())
        elif promised is not None:
            needs = needed(call, unveiled)
            if not needs & {*promised.split()}:
                wanted = " or ".join(sorted(needs)) or "what is never promised"
                found.append(Violation(call, wanted, promised))
    return marks, found


def needed(call: Call, unveiled: str) -> set[str]:
    """Return the promises of which any allows this call; none: nothing does."""
    name, arguments = call
    if name in {"mmap", "mprotect"} and "PROT_EXEC" in arguments:
        return {"prot_exec"}
    if name in {"clone", "clone3"} and "CLONE_THREAD" not in arguments:
        return {"proc"}
    if name in STDIO or (name == "newfstatat" and "AT_EMPTY_PATH" in arguments):
        return {"stdio"}
    if name == "ioctl":
        return {"stdio"} if IOCTL.search(arguments) else set()
    if name in SOCKETS:
        return _sockets(call)
    return {"dns"} if RESOLVER.search(arguments) else _files(call, unveiled)


def _sockets(call: Call) -> set[str]:
    """Return what a call on a socket needs; on those of the resolver, dns will do."""
    name, arguments = call
    if name in {"getsockopt", "setsockopt"}:
        return {"stdio"} if SOCKOPT.search(arguments) else {"inet"}
    if name == "getpeername":
        return {"inet"}
    if name == "socket" and not re.match("AF_INET6?,", arguments):
        # glibc asks rtnetlink which families there are, and nscd for names.
        return {"dns"} if re.match("AF_(NETLINK|UNIX),", arguments) else set()
    return {"inet", "dns"}


def _files(call: Call, unveiled: str) -> set[str]:
    """Return what a call that names a file needs; outside, nothing will do."""
    name, arguments = call
    inside = f"<{unveiled}>" in arguments or f'"{unveiled}/' in arguments
    if not unveiled or not inside:
        return set()
    if name in CREATE or (name == "openat" and "O_CREAT" in arguments):
        return {"cpath"}
    if name == "openat" and re.search("O_WRONLY|O_RDWR", arguments):
        return {"wpath"}
    return {"rpath"} if name == "openat" or name in LOOK else set()
