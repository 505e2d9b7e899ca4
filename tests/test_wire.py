"""The protocol: what is sent, and how the replies are judged."""

from __future__ import annotations

import contextlib
import json
import math
import re
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scw_signal import __version__, wire
from scw_signal.errors import (
    NonsenseError,
    NoSuchKeyError,
    OtherStateError,
    RefusedError,
    ScwSignalError,
    UnavailableError,
    UsageError,
)
from scw_signal.wire import Endpoint, Reply, Request

unhurried = settings(deadline=None)  # the machine may have other things to do
ANY_TEXT = st.text(st.characters())  # lone surrogates as well
LIKE_A_URL = st.lists(
    st.sampled_from(["http", "://", "http://", "h", "127.0.0.1", "[", "]", "::1"])
    | st.sampled_from([":", "80", "0", "65536", "/", "."])
    | st.sampled_from(["@", "?", "#", "\\", "%", "%25", " ", "\r\n", "\0", "é"])
).map("".join)
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


def reply(body: bytes = b"", status: int = 200, **headers: str) -> Reply:
    return Reply(
        status, {name.replace("_", "-"): text for name, text in headers.items()}, body
    )


# Requests


def test_the_signal_is_the_request_of_the_capture() -> None:
    assert wire.state_request("booted") == Request(
        method="PATCH",
        target="/state",
        headers={
            "User-Agent": f"scw-signal/{__version__}",
            "Accept": "*/*",
            "Content-Type": "application/json",
        },
        body=b'{"state_detail": "booted"}',
        limit=64 * 1024,
    )


def test_the_document_is_asked_for_in_its_json_form() -> None:
    assert wire.document_request() == Request(
        method="GET",
        target="/conf?format=json",
        headers={"User-Agent": f"scw-signal/{__version__}", "Accept": "*/*"},
        body=None,
        limit=512 * 1024,
    )


@unhurried
@given(st.text(min_size=1, max_size=128).filter(str.isprintable))
def test_a_state_reaches_the_service_as_it_was_written(state: str) -> None:
    body = wire.state_request(wire.valid_state(state)).body
    assert body is not None
    assert body.isascii()
    assert json.loads(body) == {"state_detail": state}


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("", id="empty"),
        pytest.param("x" * 129, id="too long"),
        pytest.param("booted\r\nX-Injected: 1", id="CR LF"),
        pytest.param("booted\0", id="NUL"),
        pytest.param("\x1b]0;title\x07", id="terminal escape"),
        pytest.param("\u202ebooted", id="bidi override"),
        pytest.param("\udcff", id="lone surrogate"),
        pytest.param("a\u2028b", id="line separator"),
    ],
)
def test_an_invalid_state_is_refused_in_a_printable_message(state: str) -> None:
    with pytest.raises(UsageError) as caught:
        wire.valid_state(state)
    assert str(caught.value).isprintable()


def test_a_state_may_have_128_characters() -> None:
    assert wire.valid_state("é" * 128) == "é" * 128


@unhurried
@given(ANY_TEXT | st.text("ab \n", max_size=200))
def test_a_valid_state_has_from_1_to_128_printable_characters(state: str) -> None:
    valid = 1 <= len(state) <= 128 and state.isprintable()
    try:
        assert wire.valid_state(state) == state
    except UsageError:
        assert not valid
    else:
        assert valid


def test_the_keys_of_user_data_are_asked_for_in_their_json_form() -> None:
    assert wire.user_data_list_request() == Request(
        method="GET",
        target="/user_data?format=json",
        headers={"User-Agent": f"scw-signal/{__version__}", "Accept": "*/*"},
        body=None,
        limit=512 * 1024,
    )


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_user_data_is_read_and_deleted_by_its_key(method: str) -> None:
    assert wire.user_data_request(method, "cloud-init") == Request(
        method=method,
        target="/user_data/cloud-init",
        headers={"User-Agent": f"scw-signal/{__version__}", "Accept": "*/*"},
        body=None,
        limit=1024 * 1024,
    )


@pytest.mark.parametrize("value", [b"web", b"", b"\0\xff\r\n"])
def test_user_data_is_set_as_text_byte_for_byte(value: bytes) -> None:
    request = wire.user_data_request("PATCH", "role", value)
    assert (request.method, request.target) == ("PATCH", "/user_data/role")
    assert request.headers["Content-Type"] == "text/plain"
    assert request.body == value


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_key_is_one_segment_of_the_path_whatever_is_in_it(key: str) -> None:
    target = wire.user_data_request("GET", key).target
    segment = target.removeprefix("/user_data/")
    assert re.fullmatch(r"[\w.~%-]+", segment, re.ASCII)
    assert unquote(segment) == key


@given(ANY_TEXT)
def test_a_valid_key_has_from_1_to_128_printable_characters(key: str) -> None:
    valid = 1 <= len(key) <= 128 and key.isprintable() and key not in {".", ".."}
    with contextlib.nullcontext() if valid else pytest.raises(UsageError) as caught:
        assert wire.valid_key(key) == key
    if caught is not None:
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "key", ["", ".", "..", "x" * 129, "a\nb", "a\r\nHost: b", "\u202e", "\udcff"]
)
def test_an_invalid_key_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="1 to 128 printable characters"):
        wire.valid_key(key)


# Endpoints


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://169.254.42.42", Endpoint("169.254.42.42", 80)),
        ("http://169.254.42.42/", Endpoint("169.254.42.42", 80)),
        ("http://127.0.0.1:8080", Endpoint("127.0.0.1", 8080)),
        ("http://[fd00:42::42]", Endpoint("fd00:42::42", 80)),
        ("http://[::1]:65535/", Endpoint("::1", 65535)),
        ("http://[::ffff:192.0.2.1]", Endpoint("::ffff:192.0.2.1", 80)),
        ("http://[fe80::1%vio0]:81", Endpoint("fe80::1%vio0", 81)),
        ("HTTP://metadata.Example-1.net", Endpoint("metadata.Example-1.net", 80)),
    ],
)
def test_the_url_of_a_service_is_a_host_and_perhaps_a_port(
    url: str, endpoint: Endpoint
) -> None:
    assert wire.endpoint(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http:",
        "169.254.42.42",
        "https://169.254.42.42",
        "ftp://h",
        "http://h/state",
        "http://h//",
        "http://h?a",
        "http://h#a",
        "http://user@h",
        "http://user:secret@h",
        "http://h\\@other",
        "http:///h",
        " http://h",
        "http://h ",
        "http://h\n",
        "http://h\r\nX-Injected: 1",
        "http://h\t",
        "http://h\0",
        "http://%0d%0a",
        "http://hôte",
        "http://\u212a",  # a Kelvin sign, lower-cased to k,
        "http://:80",
        "http://h:",
        "http://h:0",
        "http://h:65536",
        "http://h:-1",
        "http://h:+80",
        "http://h:8_0",
        "http://h:80:80",
        "http://h:\u0668\u0660",
        "http://h:" + "9" * 5000,
        "http://::1",
        "http://[::1",
        "http://::1]",
        "http://[]",
        "http://[::1]x",
        "http://x[::1]",
        "http://[::1]80",
        "http://[[::1]]",
        "http://[fe80::1%]",
        "http://[fe80::1%a/b]",
        "http://[127.0.0.1]",
        "http://[127.0.0.1:80]",
        "http://[name]",
        "http://[cafe:80]",
        "http://[:::::]",
        "http://[1:2:3:4:5:6:7:8:9]",
        "http://999.1.1.1",
        "http://1.2.3.4.5",
        "http://127.1",
        "http://127.0.0.1.",
    ],
)
def test_nothing_else_is_taken_for_the_url_of_a_service(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        wire.endpoint(url)
    assert str(caught.value).isprintable()


@unhurried
@given(ANY_TEXT | ANY_TEXT.map("http://{}".format) | LIKE_A_URL)
def test_any_text_is_an_endpoint_that_spells_the_same_or_a_usage_error(
    text: str,
) -> None:
    try:
        endpoint = wire.endpoint(text)
    except UsageError:
        return
    assert wire.endpoint(endpoint.url) == endpoint
    host = re.escape(Endpoint(endpoint.host).url)
    assert re.fullmatch(rf"{host}(:0*{endpoint.port})?/?", text, re.IGNORECASE)


def test_the_url_of_an_endpoint_names_the_port_only_where_it_is_not_80() -> None:
    assert Endpoint("169.254.42.42").url == "http://169.254.42.42"
    assert Endpoint("fd00:42::42").url == "http://[fd00:42::42]"
    assert Endpoint("::1", 8080).url == "http://[::1]:8080"


KNOWN = [Endpoint("169.254.42.42", 80), Endpoint("fd00:42::42", 80)]


@pytest.mark.parametrize(
    ("environment", "endpoints"),
    [
        ({}, KNOWN),
        ({"METADATA_IP": "", "METADATA_PORT": ""}, KNOWN),
        ({"METADATA_IP": "127.0.0.1"}, [Endpoint("127.0.0.1", 80)]),
        ({"METADATA_IP": "fd00::1"}, [Endpoint("fd00::1", 80)]),
        ({"METADATA_IP": "[fd00::1]"}, [Endpoint("fd00::1", 80)]),
        (
            {"METADATA_IP": "fd00::1", "METADATA_PORT": "81"},
            [Endpoint("fd00::1", 81)],
        ),
        ({"METADATA_PORT": "81"}, [known._replace(port=81) for known in KNOWN]),
    ],
)
def test_the_vendors_environment_says_where_the_service_is(
    environment: dict[str, str], endpoints: list[Endpoint]
) -> None:
    assert wire.endpoints([], environment) == endpoints


def test_urls_on_the_command_line_replace_all_else_in_their_order() -> None:
    assert wire.endpoints(
        ["http://[::1]:2", "http://127.0.0.1:1"], {"METADATA_IP": "no address"}
    ) == [Endpoint("::1", 2), Endpoint("127.0.0.1", 1)]


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        ({"USERDATA_IP": "127.0.0.1"}, "127.0.0.1"),
        ({"USERDATA_IP": "127.0.0.1", "METADATA_IP": "127.0.0.2"}, "127.0.0.1"),
        ({"USERDATA_IP": "", "METADATA_IP": "127.0.0.2"}, "127.0.0.2"),
        ({"METADATA_IP": "127.0.0.2"}, "127.0.0.2"),
    ],
)
def test_the_first_variable_that_is_set_gives_the_address(
    environment: dict[str, str], host: str
) -> None:
    variables = ("USERDATA_IP", "METADATA_IP")
    assert wire.endpoints([], environment, variables) == [Endpoint(host)]
    assert wire.endpoints([], {}, variables) == KNOWN


def test_the_variable_that_holds_no_address_is_named() -> None:
    variables = ("USERDATA_IP", "METADATA_IP")
    for variable in variables:
        with pytest.raises(UsageError, match=f"^{variable} and METADATA_PORT do"):
            wire.endpoints([], {variable: "no address"}, variables)


@pytest.mark.parametrize(
    "environment",
    [
        {"METADATA_IP": "127.0.0.1:8080"},
        {"METADATA_IP": "http://127.0.0.1"},
        {"METADATA_IP": "[fd00::1]:81"},
        {"METADATA_IP": "127.0.0.1/x"},
        {"METADATA_IP": "user@host"},
        {"METADATA_IP": "h\r\nX-Injected: 1"},
        {"METADATA_IP": "\udcff"},
        {"METADATA_PORT": "http"},
        {"METADATA_PORT": "/"},
        {"METADATA_PORT": "0"},
        {"METADATA_PORT": "65536"},
        {"METADATA_PORT": "80\r\nX-Injected: 1"},
    ],
)
def test_variables_that_make_no_address_are_named(
    environment: dict[str, str],
) -> None:
    with pytest.raises(UsageError, match="METADATA_IP and METADATA_PORT") as caught:
        wire.endpoints([], environment)
    assert str(caught.value).isprintable()


# Acknowledgements


@pytest.mark.parametrize(
    ("body", "state"),
    [
        pytest.param(b"STATE_DETAIL=booted\n", "booted", id="the capture"),
        pytest.param(b"STATE_DETAIL=booted", "booted", id="no newline"),
        pytest.param(b"STATE_DETAIL=booted\r\n", "booted", id="CR LF"),
        pytest.param(b"STATE_DETAIL='booting kernel'\n", "booting kernel", id="quoted"),
        pytest.param(
            b"""STATE_DETAIL='it'"'"'s'\n""", "it's", id="quote within quotes"
        ),
        pytest.param(rb"STATE_DETAIL='it'\''s'", "it's", id="the other spelling"),
        pytest.param("STATE_DETAIL='déjà vu'".encode(), "déjà vu", id="not ASCII"),
        pytest.param(b"ID=1\nSTATE_DETAIL=booted\nX=\n", "booted", id="among others"),
        pytest.param(b'{"state_detail": "booted"}', "booted", id="JSON"),
        pytest.param(
            b' {"id": 1, "state_detail": "booted"}\r\n', "booted", id="JSON, more"
        ),
    ],
)
def test_an_echo_of_the_state_is_an_acknowledgement(body: bytes, state: str) -> None:
    assert wire.judge_acknowledgement(reply(body), state) is True


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"STATE_DETAIL='booting kernel'\n", id="text"),
        pytest.param(b'{"state_detail": "booting kernel"}', id="JSON"),
        pytest.param(b"STATE_DETAIL=''\n", id="the empty state"),
        pytest.param(b"STATE_DETAIL=Booted\n", id="another case"),
        pytest.param(b"STATE_DETAIL=\xff\n", id="not UTF-8"),
        pytest.param(b"STATE_DETAIL='\x1b[2J\x07'\n", id="terminal escape"),
        pytest.param(b"STATE_DETAIL=" + b"x" * 2000, id="long"),
    ],
)
def test_an_echo_of_another_state_is_a_failed_try(body: bytes) -> None:
    with pytest.raises(OtherStateError) as caught:
        wire.judge_acknowledgement(reply(body), "booted")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "page",
    [
        reply(b"<!DOCTYPE html><p>STATE_DETAIL=booted"),
        reply(b"\xef\xbb\xbf\n <html>"),
        reply(b"STATE_DETAIL=booted\n", Content_Type="text/html; charset=utf-8"),
        reply(b"", Content_Type="TEXT/HTML"),
    ],
)
def test_a_web_page_is_never_the_answer_to_a_signal(page: Reply) -> None:
    with pytest.raises(NonsenseError, match="web page"):
        wire.judge_acknowledgement(page, "booted")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n", id="blank"),
        pytest.param(b"OK", id="another text"),
        pytest.param(b"\0\xff\xfe", id="garbage"),
        pytest.param(b"STATE_DETAIL=", id="null"),
        pytest.param(b"STATE_DETAIL=booting kernel", id="the old dialect"),
        pytest.param(b"STATE_DETAIL='booted", id="an open quote"),
        pytest.param(b"XSTATE_DETAIL=other", id="another key"),
        pytest.param(b"STATE_DETAIL=" + b"'" * 65_000, id="a huge line"),
        pytest.param(b'{"state_detail": null}', id="JSON null"),
        pytest.param(b'{"state_detail": ["booted"]}', id="JSON of another type"),
        pytest.param(b'{"state_detail": "booted"', id="broken JSON"),
        pytest.param(b'{"a":' * 13_000, id="deep JSON"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="a JSON number of 5000 digits"),
        pytest.param(b'["booted"]', id="a JSON list"),
    ],
)
def test_a_2xx_that_names_no_state_leaves_the_signal_unconfirmed(body: bytes) -> None:
    assert wire.judge_acknowledgement(reply(body), "booted") is False


@unhurried
@given(
    st.binary()
    | st.binary().map(b"STATE_DETAIL=".__add__)
    | st.text(" '\"\\ab\n").map(lambda text: b"STATE_DETAIL=" + text.encode())
    | st.dictionaries(st.just("state_detail"), st.none() | st.integers() | st.text())
    .map(json.dumps)
    .map(str.encode)
)
def test_whatever_a_2xx_says_is_judged(body: bytes) -> None:
    with contextlib.suppress(OtherStateError):
        assert wire.judge_acknowledgement(reply(body), "booted") in {True, False}


# Status codes


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_success(status: int) -> None:
    assert wire.judge_document(reply(b"{}", status)) == b"{}"


@pytest.mark.parametrize(
    "status", [0, 100, 103, 404, 408, 425, 429, 500, 502, 503, 504, 599, 600, 999]
)
def test_a_status_that_may_pass_is_worth_another_try(status: int) -> None:
    for judge in (wire.judge_document, lambda r: wire.judge_acknowledgement(r, "x")):
        with pytest.raises(UnavailableError, match=f"answered {status}$") as caught:
            judge(reply(b"STATE_DETAIL=x", status, Retry_After="7"))
        assert caught.value.after == 7.0


@pytest.mark.parametrize(
    "status", [300, 301, 302, 304, 307, 308, 400, 401, 403, 405, 410, 418, 451, 499]
)
def test_a_redirect_or_a_lasting_client_error_is_a_refusal(status: int) -> None:
    for judge in (wire.judge_document, lambda r: wire.judge_acknowledgement(r, "x")):
        with pytest.raises(RefusedError, match=f"answered {status}$"):
            judge(reply(b"STATE_DETAIL=x", status, Retry_After="7"))


def test_a_document_that_was_cut_off_is_nonsense() -> None:
    with pytest.raises(NonsenseError, match="larger than 524288 bytes"):
        wire.judge_document(reply(b"{}")._replace(truncated=True))


def test_an_acknowledgement_may_be_cut_off() -> None:
    long = reply(b"STATE_DETAIL=booted\n")._replace(truncated=True)
    assert wire.judge_acknowledgement(long, "booted") is True


# User data


def test_the_keys_of_user_data_are_those_of_the_list() -> None:
    assert wire.judge_keys(reply(b'{"user_data": ["a", "b\\n", ""]}')) == [
        "a",
        "b\n",
        "",
    ]
    assert wire.judge_keys(reply(b'{"user_data": []}')) == []


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"USER_DATA=0\n",
            b"<title>Welcome</title>",
            b"[]",
            b"{}",
            b"7",
            b"null",
        ),
        *(b'"user_data"', b'{"user_data": 1}', b'{"user_data": {"a": 1}}'),
        *(b'{"user_data": [1]}', b'{"user_data": ["a"', b'{"user_data": null}'),
        *(b"\xff", b"[" * 100_000, b"9" * 10_000),
    ],
)
def test_a_reply_that_is_no_list_of_keys_is_nonsense(body: bytes) -> None:
    with pytest.raises(NonsenseError, match="the list of user data is not"):
        wire.judge_keys(reply(body))


@pytest.mark.parametrize("status", [200, 201, 204])
@pytest.mark.parametrize("value", [b"", b"web", b"web\n", bytes(range(256))])
def test_a_value_is_the_body_byte_for_byte(status: int, value: bytes) -> None:
    said = reply(value, status, Content_Type="text/plain")
    assert wire.judge_user_data(said, "key") == value


def test_a_key_that_the_service_does_not_find_is_named() -> None:
    with pytest.raises(NoSuchKeyError, match=r"user data: a\\nb$"):
        wire.judge_user_data(reply(b"x", 404), "a\nb")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (reply(b"x", 429), UnavailableError),
        (reply(b"x", 503), UnavailableError),
        (reply(b"x", 302), RefusedError),
        (reply(b"x", 413), RefusedError),
        (reply(b"x", Content_Type="text/html; charset=utf-8"), NonsenseError),
        (reply(b"x", Content_Type="TEXT/HTML"), NonsenseError),
        (reply(b"x")._replace(truncated=True), RefusedError),
    ],
)
def test_a_reply_that_is_no_value_is_an_error(
    said: Reply, error: type[ScwSignalError]
) -> None:
    with pytest.raises(error):
        wire.judge_user_data(said, "key")


@pytest.mark.parametrize("status", [400, 403])
def test_a_refusal_mentions_the_source_port(status: int) -> None:
    for judge in (wire.judge_keys, lambda r: wire.judge_user_data(r, "key")):
        with pytest.raises(RefusedError, match=f"{status}.* port is not below 1024"):
            judge(reply(b"x", status))


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("00000000000060", 60.0),
        ("9" * 5000, 1e9),
    ],
)
def test_retry_after_in_seconds_is_taken_at_its_word(
    value: str, seconds: float
) -> None:
    assert wire.retry_after({"Retry-After": value}) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-5",
        "+5",
        "1.5",
        "1e3",
        "5, 10",
        "inf",
        "nan",
        "\u0665",
        "\xb2",
        "5\x00",
        "soon",
    ],
)
def test_a_retry_after_that_is_no_number_asks_for_nothing(value: str) -> None:
    assert wire.retry_after({"Retry-After": value, "Date": DATE}) == 0.0


def test_no_retry_after_asks_for_nothing() -> None:
    assert wire.retry_after({"Date": DATE}) == 0.0


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Thu, 22 Oct 2015 07:28:00 GMT", 86_400.0),
        ("Wed, 21 Oct 2015 09:28:10 +0200", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),  # already past
        ("Wed Oct 21 07:28:30 2015", 30.0),  # asctime, which is obsolete
        ("Wed, 99 Oct 2015 07:28:30 GMT", 0.0),
        ("Wed, 21 Oct 99999 07:28:30 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:30 +99999999999", 0.0),
    ],
)
def test_a_retry_after_date_is_compared_with_the_date_of_the_reply(
    until: str, seconds: float
) -> None:
    assert wire.retry_after({"Retry-After": until, "Date": DATE}) == seconds


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_retry_after_date_in_a_reply_without_a_date_asks_for_nothing(
    date: str | None,
) -> None:
    headers = {"Retry-After": "Wed, 21 Oct 2037 07:28:30 GMT"}
    assert wire.retry_after(headers if date is None else {**headers, "Date": date}) == 0


LIKE_A_DATE = st.lists(
    st.sampled_from(["Wed", ",", "21", "31", "0", "Oct", "Feb", "2015", "99999"])
    | st.sampled_from(["-", ":", "07:28:00", "24:61:00"])
    | st.sampled_from(["GMT", "EST", "-0000", "+9999", " ", "(", '"', "\\", "é"])
).map("".join)


@unhurried
@given(
    ANY_TEXT | st.from_regex(r"\d+", fullmatch=True) | LIKE_A_DATE,
    ANY_TEXT | LIKE_A_DATE | st.just(DATE),
)
def test_any_retry_after_is_a_finite_number_of_seconds(value: str, date: str) -> None:
    seconds = wire.retry_after({"Retry-After": value, "Date": date})
    assert isinstance(seconds, float)
    assert math.isfinite(seconds)
    assert seconds >= 0


@pytest.mark.parametrize("status", [200, 201, 204])
def test_any_success_says_that_user_data_was_stored(status: int) -> None:
    wire.judge_stored(Reply(status, {}, b""))


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, UnavailableError), (503, UnavailableError), (403, RefusedError)],
)
def test_user_data_that_was_not_stored_is_an_error(
    status: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        wire.judge_stored(Reply(status, {}, b""))
