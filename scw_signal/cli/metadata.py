"""scw-metadata: prints the metadata of this server.

Some imports are inside functions, so that a cached look-up imports only what it uses.
"""

from __future__ import annotations

from scw_signal import flat, render, store
from scw_signal.cli import process
from scw_signal.cli.options import (
    ONCE,
    QUIET,
    RUN_DIR,
    URL,
    VERBOSE,
    Command,
    Option,
    timeout,
)
from scw_signal.errors import (
    NonsenseError,
    NoSuchKeyError,
    ScwSignalError,
    UsageError,
)
from scw_signal.terminal import printable

TYPE_CHECKING = False  # see render
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scw_signal.agent import Metadata
    from scw_signal.cli.options import Arguments
    from scw_signal.document import Node

TIMEOUT_SECONDS = 10.0
FORMS = ("json", "sh", "list-keys", "ssh-keys")
GOES_WITH = {"prefix": "sh", "account": "ssh-keys"}
MOST_NAMED = 8  # missing keys
MOST_COMPARED = 2000  # keys to compare for suggestions; a real document has 200

COMMAND = Command(
    "scw-metadata",
    "[KEY ...]",
    "Print the metadata of this server, or the values of keys, one a line.\n"
    "A key is written PUBLIC_IP_ADDRESS or public_ip.address, in any case.",
    (
        Option(
            "cached",
            "use what is stored; if nothing is stored, ask the "
            "service and store its answer",
        ),
        Option("max-age", "like --cached, but use nothing older", metavar="SECONDS"),
        Option("json", "print JSON; with KEY, that part of it"),
        Option("sh", "print assignments that are safe to source"),
        Option(
            "prefix", "prefix of the names that --sh prints (SCW_)", metavar="PREFIX"
        ),
        Option("list-keys", "print the keys only; with KEY, those below it"),
        Option("ssh-keys", "print the SSH keys; KEY is the user, sshd's %u"),
        Option(
            "account", "user who may log in (root); may be repeated", metavar="NAME"
        ),
        timeout(TIMEOUT_SECONDS),
        ONCE,
        QUIET,
        VERBOSE,
        RUN_DIR,
        URL,
    ),
)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status, raises ScwSignalError."""
    arguments = COMMAND.parse(argv)
    if process.informed(COMMAND, arguments):
        return process.OK
    _check(arguments)
    if arguments.has("ssh-keys"):
        from scw_signal.cli import ssh_keys  # noqa: PLC0415

        return ssh_keys.show(COMMAND, arguments)
    keys = [flat.canonical(key) for key in arguments.operands]
    output = as_json if arguments.has("json") else _lines
    process.write(output(arguments, keys))
    return process.OK


def _check(arguments: Arguments) -> None:
    """Raise UsageError for options that make no sense together."""
    forms = [f"--{form}" for form in FORMS if arguments.has(form)]
    if len(forms) > 1:
        raise UsageError(f"{' and '.join(forms)} exclude each other")
    for option, form in GOES_WITH.items():
        if arguments.has(option) and not arguments.has(form):
            raise UsageError(f"--{option} goes with --{form}")
    if arguments.has("max-age"):
        arguments.seconds("max-age", 0.0)
        if arguments.has("ssh-keys"):
            raise UsageError("--max-age and --ssh-keys exclude each other")


def _lines(arguments: Arguments, keys: list[str]) -> str:
    """Return the output, made from the flat form."""
    prefix = _prefix(arguments)
    view = _stored(arguments, store.METADATA_FLAT)
    if view is None or not flat.is_flat(view):
        from scw_signal import document  # noqa: PLC0415

        view = flat.dump(document.flatten(_ask(arguments).document))
    if arguments.has("list-keys"):
        return _names(view, keys)
    if not keys:
        pairs = flat.load(view)
        return render.shell(pairs, prefix) if prefix else render.text(pairs)
    found = [flat.find(view, key) for key in keys]
    missing = [key for key, (there, _) in zip(keys, found, strict=True) if not there]
    if missing:
        raise _no_such(missing, (name for name, _ in flat.load(view)))
    values = [value for _, value in found]
    if prefix:
        lines = [
            render.shell([pair], prefix) for pair in zip(keys, values, strict=True)
        ]
        if "" in lines:
            key = printable(keys[lines.index("")], 60)
            raise ScwSignalError(f"a shell cannot hold this name or value: {key}")
        return "".join(lines)
    return render.values(values)


def _names(view: str, keys: list[str]) -> str:
    """Return the names of all keys; with `keys`, only of these and those below them."""
    names = [name for name, _ in flat.load(view)]
    if not keys:
        return "".join(f"{printable(name)}\n" for name in names)
    listed, missing = list[str](), list[str]()
    for key in keys:
        below = [n for n in names if n == key or n.startswith(f"{key}_")]
        listed += below
        if not below:
            missing.append(key)
    if missing:
        raise _no_such(missing, names)
    return "".join(f"{printable(name)}\n" for name in listed)


def as_json(arguments: Arguments, keys: list[str]) -> str:
    """Return the document, or the parts that the keys name, as JSON."""
    import json  # noqa: PLC0415

    from scw_signal import document  # noqa: PLC0415

    stored = _stored(arguments, store.METADATA_JSON)
    try:
        tree = document.parse((stored or "").encode())
    except NonsenseError:  # nothing is stored, or it is damaged
        tree = _ask(arguments).document
    parts: list[Node] = [tree]
    if keys:
        nodes = document.walk(tree)
        missing = [key for key in keys if key not in nodes]
        if missing:
            raise _no_such(missing, nodes)
        parts = [nodes[key] for key in keys]
    # ASCII only: this escapes what a terminal could obey, and the JSON stays valid.
    return "".join(json.dumps(part, indent=2) + "\n" for part in parts)


def _prefix(arguments: Arguments) -> str:
    """Return the prefix for --sh, or "" without --sh."""
    if not arguments.has("sh"):
        return ""
    prefix = arguments.text("prefix", render.PREFIX)
    if not render.is_name(prefix):
        raise UsageError(
            "--prefix takes capital letters, digits and _, as in SRV_;"
            f" not {printable(prefix, 40)!r}"
        )
    return prefix


def _stored(arguments: Arguments, name: str) -> str | None:
    """Return what is stored, if the options say to use it."""
    if not _caching(arguments):
        return None
    max_age = arguments.seconds("max-age", 0.0) if arguments.has("max-age") else None
    return store.read(arguments.text("run-dir", store.RUN_DIRECTORY), name, max_age)


def _caching(arguments: Arguments) -> bool:
    """Tell whether to use stored metadata, and to store the service's answer."""
    return arguments.has("cached") or arguments.has("max-age")


def _ask(arguments: Arguments) -> Metadata:
    """Ask the service, and store its answer if wanted and possible."""
    from scw_signal import agent  # noqa: PLC0415
    from scw_signal.cli.session import Session  # noqa: PLC0415
    from scw_signal.errors import StoreError  # noqa: PLC0415

    with Session(COMMAND, arguments, TIMEOUT_SECONDS) as session:
        metadata = agent.fetch(session.service, session.patience)
    if _caching(arguments):
        try:
            place = store.Store(arguments.text("run-dir", store.RUN_DIRECTORY))
            for name, data in agent.metadata_files(metadata).items():
                place.write(name, data)
        except StoreError:
            pass  # without permission to write, print the answer all the same
    return metadata


def _no_such(missing: list[str], there: Iterable[str]) -> NoSuchKeyError:
    from difflib import get_close_matches  # noqa: PLC0415
    from itertools import islice  # noqa: PLC0415

    known = list(islice(there, MOST_COMPARED))
    told = []
    for key in missing[:MOST_NAMED]:
        near = get_close_matches(key[:100], known, n=3)
        hint = f" (near: {', '.join(near)})" if near else ""
        told.append(printable(key, 60) + hint)
    if len(missing) > MOST_NAMED:
        told.append(f"and {len(missing) - MOST_NAMED} more")
    return NoSuchKeyError(f"no such key: {', '.join(told)}")
