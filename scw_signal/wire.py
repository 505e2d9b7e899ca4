"""The protocol: the requests that are sent, and how a reply is judged.

Pure: no socket, no clock, no file. What is known about the service comes from a
packet capture of 2018 and from the vendor's own clients. Its reply may have changed
since, so there are three outcomes for a signal:

    2xx that echoes the state   acknowledged
    2xx that names another      failed, tried again; so is a web page
    2xx with anything else      perhaps accepted: look in the document

Strategy: silence is not success, and an unknown reply is not failure. An agent that
insists on the reply of 2018 would retry forever once the service changes it.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from . import __version__, document
from .errors import (
    NonsenseError,
    NoSuchKeyError,
    OtherStateError,
    RefusedError,
    UnavailableError,
    UsageError,
)
from .terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Address = tuple[int, tuple[Any, ...]]  # a family, and what connect(2) takes

ADDRESSES = ("169.254.42.42", "fd00:42::42")  # in order of preference
PORT = 80
STATE_LENGTH = 128  # characters; probably the platform's own limit
# Four times a state in which each character is quoted: shlex is not linear.
LONGEST_QUOTED = 2048
ACKNOWLEDGEMENT_LIMIT = 64 * 1024  # bytes read of a reply to the signal
DOCUMENT_LIMIT = 512 * 1024  # bytes read of a metadata document; a real one has 4000
KEY_LENGTH = 128  # characters of a key of user data; the service's limit is unknown
USER_DATA_LIMIT = 1024 * 1024  # bytes of a value; the service's limit is unknown
LONGEST_RETRY_AFTER = 1e9  # seconds, far above any cap; many digits would make inf

# Temporary client errors: an endpoint that does not exist yet (early in a boot),
# a timeout, too early (RFC 8470), too many requests (RFC 6585).
TRANSIENT = frozenset({404, 408, 425, 429})
_TOO_MANY = 429  # means overload, as every server error does
_SUCCESS = range(200, 300)
_NOT_FOUND = 404
_SOURCE_REFUSED = frozenset({400, 403})  # for user data: the source port is too high
_REFUSAL = range(300, 500)  # includes redirects, which are not followed

# An IPv6 address in brackets, perhaps with a zone, or a name or an IPv4 address;
# then perhaps a port. Not urlsplit: what it accepts inside and beside the brackets
# depends on the version of Python.
_URL = re.compile(
    r"http://(\[(?:[0-9a-f]*:){2,8}[0-9a-f.]*(?:%[\w.-]+)?\]|[\w.-]+)"
    r"(?::(\d{1,5}))?/?",
    re.ASCII | re.IGNORECASE,
)
_LAST_PORT = 65535
LONGEST_NAME = 253  # characters of a host name ...
_LONGEST_LABEL = 63  # ... and of one part of it


class Endpoint(NamedTuple):
    """One address of the service: a host, without brackets, and a TCP port."""

    host: str
    port: int = PORT

    @property
    def url(self) -> str:
        """The address as a URL, with the port if it is not 80."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}" + (f":{self.port}" if self.port != PORT else "")

    def is_numeric(self) -> bool:
        """Tell whether the host is an address that needs no resolver.

        An IPv6 address with a zone needs one: getaddrinfo(3) parses the zone.
        """
        if ":" in self.host:
            return "%" not in self.host
        return self.host.replace(".", "").isdigit()


class Request(NamedTuple):
    """One request: the method, the path with its query, and the body."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None
    limit: int  # bytes of the reply's body to read


class Reply(NamedTuple):
    """One reply: the status, the headers, and the part of the body that was read."""

    status: int
    headers: Mapping[str, str]  # names are not case-sensitive
    body: bytes
    truncated: bool = False  # the body is longer than the limit


_HEADERS = {"User-Agent": f"scw-signal/{__version__}", "Accept": "*/*"}


def endpoint(url: str) -> Endpoint:
    """Parse the URL of a metadata service: only `http://HOST[:PORT]`.

    Raises UsageError.
    """
    match = _URL.fullmatch(url)
    port = int(match[2] or PORT) if match else 0
    if match is None or not 1 <= port <= _LAST_PORT or not _is_host(match[1]):
        raise UsageError(
            f"not the URL of a service: {printable(url, 80)!r};"
            " write http://ADDRESS or http://ADDRESS:PORT"
        )
    return Endpoint(match[1].strip("[]"), port)


def _is_host(host: str) -> bool:
    """Tell whether this is an address, or a name that is not too long.

    The limits are in RFC 1035, 2.3.4.
    """
    if host.startswith("["):
        return _is_address(ipaddress.IPv6Address, host.strip("[]"))
    if host.replace(".", "").isdigit():
        return _is_address(ipaddress.IPv4Address, host)
    labels = host.removesuffix(".").split(".")
    return len(host) <= LONGEST_NAME and all(
        0 < len(label) <= _LONGEST_LABEL for label in labels
    )


def _is_address(kind: Callable[[str], object], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def endpoints(
    urls: list[str],
    environment: Mapping[str, str],
    variables: tuple[str, ...] = ("METADATA_IP",),
) -> list[Endpoint]:
    """Return the addresses of the service, in the order in which to try them.

    `urls` from the command line replace everything else. Without them, the first of
    the vendor's `variables` that is set gives the address; without any, there are the
    two known addresses. METADATA_PORT gives the port. Raises UsageError.
    """
    if urls:
        return [endpoint(url) for url in urls]
    variable = next(filter(environment.get, variables), variables[-1])
    address = environment.get(variable, "").strip("[]")
    port = environment.get("METADATA_PORT", "")
    try:
        return [
            endpoint(f"http://[{host}]{port and ':' + port}")
            if ":" in host
            else endpoint(f"http://{host}{port and ':' + port}")
            for host in ([address] if address else ADDRESSES)
        ]
    except UsageError:
        raise UsageError(
            f"{variable} and METADATA_PORT do not make an address:"
            f" {printable(address, 40)!r}, {printable(port, 40)!r}"
        ) from None


def valid_state(state: str) -> str:
    """Return `state` if it can be signalled: 1 to 128 printable characters.

    Raises UsageError.
    """
    if not state:
        raise UsageError("the state is empty; say what to signal, as in: booted")
    if len(state) > STATE_LENGTH:
        raise UsageError(
            f"the state has {len(state)} characters; {STATE_LENGTH} are allowed"
        )
    if not state.isprintable():
        raise UsageError(
            f"the state has characters that cannot be printed: {printable(state)!r}"
        )
    return state


def state_request(state: str) -> Request:
    """Return the signal: PATCH /state, as in the capture."""
    body = json.dumps({"state_detail": state}).encode()
    headers = {**_HEADERS, "Content-Type": "application/json"}
    return Request("PATCH", "/state", headers, body, ACKNOWLEDGEMENT_LIMIT)


def document_request() -> Request:
    """Return the request for the metadata document as JSON."""
    return Request("GET", "/conf?format=json", _HEADERS, None, DOCUMENT_LIMIT)


def valid_key(key: str) -> str:
    """Return `key` if it can be a key of user data: 1 to 128 printable characters.

    Raises UsageError.
    """
    if not 0 < len(key) <= KEY_LENGTH or not key.isprintable() or key in {".", ".."}:
        raise UsageError(
            f"not a key of user data: {printable(key, 60)!r};"
            f" a key has 1 to {KEY_LENGTH} printable characters"
        )
    return key


def user_data_list_request() -> Request:
    """Return the request for the keys of the user data."""
    return Request("GET", "/user_data?format=json", _HEADERS, None, DOCUMENT_LIMIT)


def user_data_request(method: str, key: str, value: bytes | None = None) -> Request:
    """Return the request that reads (GET), sets (PATCH) or deletes (DELETE) a key.

    The key is quoted to be one segment of the path (RFC 3986, 2.1).
    """
    target = "/user_data/" + quote(key, safe="")
    headers = dict(_HEADERS)
    if value is not None:
        headers["Content-Type"] = "text/plain"
    return Request(method, target, headers, value, USER_DATA_LIMIT)


def judge_keys(reply: Reply) -> list[str]:
    """Return the keys of the user data, as the service lists them.

    Raises UnavailableError, RefusedError or NonsenseError.
    """
    _judge_user_data_status(reply)
    try:
        listed = document.decode(reply.body)
    except NonsenseError:
        raise NonsenseError("the list of user data is not JSON") from None
    keys = listed.get("user_data") if isinstance(listed, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise NonsenseError("the list of user data is not a list of keys")
    return list(map(str, keys))


def judge_user_data(reply: Reply, key: str) -> bytes:
    """Return the value in a reply about `key`, byte for byte.

    Raises NoSuchKeyError for 404, which here means that the key does not exist;
    RefusedError, also for a value larger than USER_DATA_LIMIT; UnavailableError or
    NonsenseError.
    """
    if reply.status == _NOT_FOUND:
        raise NoSuchKeyError(f"no such key in the user data: {printable(key, 60)}")
    _judge_user_data_status(reply)
    if _says_html(reply):  # a value may well begin with "<"
        raise NonsenseError("the service sent a web page in place of a value")
    if reply.truncated:
        raise RefusedError(f"the value is larger than {USER_DATA_LIMIT} bytes")
    return reply.body


def judge_stored(reply: Reply) -> None:
    """Check the reply to a write of user data.

    The exact status of a success is unknown, so any 2xx is one. 404 means that the
    endpoint does not exist yet, as early in a boot. Raises UnavailableError or
    RefusedError.
    """
    _judge_user_data_status(reply)


def judge_acknowledgement(reply: Reply, state: str) -> bool:
    """Tell whether a reply confirms `state`; False means that it is unconfirmed.

    Raises OtherStateError, NonsenseError, UnavailableError or RefusedError.
    """
    _judge_status(reply)
    if _is_web_page(reply):
        raise NonsenseError("the service sent a web page in place of its answer")
    echoed = acknowledged_state(reply.body)
    if echoed is None:
        return False
    if echoed != state:
        raise OtherStateError(
            f"the service acknowledged {printable(echoed, 40)!r}, not {state!r}"
        )
    return True


def judge_document(reply: Reply) -> bytes:
    """Return the body of a reply that holds a whole document, not parsed yet.

    Raises UnavailableError, RefusedError or NonsenseError.
    """
    _judge_status(reply)
    if reply.truncated:
        raise NonsenseError(f"the document is larger than {DOCUMENT_LIMIT} bytes")
    return reply.body


def acknowledged_state(body: bytes) -> str | None:
    """Return the state that an acknowledgement names, or None if it names none.

    It can have two forms: the line `STATE_DETAIL=value`, quoted as for a shell, or a
    JSON object with `state_detail`.
    """
    if body.lstrip().startswith(b"{"):
        try:
            named = document.parse(body).get("state_detail")
        except NonsenseError:
            return None
        return named if isinstance(named, str) else None
    for line in body.decode("utf-8", "replace").strip().splitlines():
        if line.startswith("STATE_DETAIL="):
            return _unquoted(line.removeprefix("STATE_DETAIL="))
    return None


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that Retry-After asks for, 0 if it is absent or broken.

    It is a number of seconds or an HTTP-date (RFC 9110, 10.2.3). A date is compared
    with the reply's own Date header: at boot our wall clock may be years off.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(value)
        now = parsedate_to_datetime(headers.get("Date", ""))
        if until.tzinfo is None:  # an obsolete form; every HTTP-date is in GMT
            until = until.replace(tzinfo=now.tzinfo)
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def _says_html(reply: Reply) -> bool:
    return reply.headers.get("Content-Type", "").lower().startswith("text/html")


def _is_web_page(reply: Reply) -> bool:
    """Tell whether this is a page of some proxy or portal."""
    body = reply.body.removeprefix(b"\xef\xbb\xbf").lstrip()
    return _says_html(reply) or body.startswith(b"<")


def _judge_status(reply: Reply) -> None:
    """Raise an error for every status except 2xx."""
    status = reply.status
    if status in _SUCCESS:
        return
    if status in TRANSIENT or status not in _REFUSAL:
        raise UnavailableError(
            f"the service answered {status}",
            after=retry_after(reply.headers),
            overload=status == _TOO_MANY or status not in _REFUSAL,
        )
    raise RefusedError(f"the service refused: it answered {status}")


def _judge_user_data_status(reply: Reply) -> None:
    """Raise an error for every status except 2xx, with a hint about the source port."""
    if reply.status in _SOURCE_REFUSED:
        raise RefusedError(
            f"the service refused: it answered {reply.status}, as it does where the"
            " source port is not below 1024 (NAT may have changed it)"
        )
    _judge_status(reply)


def _unquoted(word: str) -> str | None:
    if len(word) > LONGEST_QUOTED:
        return None
    try:
        words = shlex.split(word)
    except ValueError:  # an unclosed quote
        return None
    return words[0] if len(words) == 1 else None
