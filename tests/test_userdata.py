"""scw-userdata, installed, end to end."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from installed import BIN, ENVIRONMENT, PATIENCE, Result, run, shown
from scw_signal import wire
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY_BYTE = bytes(range(256)) * 5

pytestmark = pytest.mark.usefixtures("commands")


@pytest.fixture
def root() -> None:
    """Skip the test unless this is root, which alone has the ports below 1024."""
    if os.geteuid() != 0:
        pytest.skip("only root has the ports below 1024")


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator(user_data={"role": b"web", "bytes": EVERY_BYTE}) as service:
        yield service


def userdata(service: Emulator, *words: str, stdin: str = "") -> Result:
    return run("scw-userdata", "--once", "--url", service.url, *words, stdin=stdin)


def in_bytes(service: Emulator, *words: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(
        [BIN / "scw-userdata", "--url", service.url, *words],
        env=ENVIRONMENT,
        input=stdin,
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
    ).stdout


@pytest.mark.usefixtures("root")
class TestForRoot:
    """What root can do."""

    def test_the_keys_are_listed_a_line_each(self, service: Emulator) -> None:
        assert userdata(service) == (0, "role\nbytes\n", "")

    def test_without_user_data_the_list_is_empty(self) -> None:
        with Emulator() as service:
            assert userdata(service) == (0, "", "")

    def test_a_value_is_printed_and_no_newline_is_added(
        self, service: Emulator
    ) -> None:
        assert userdata(service, "role") == (0, "web", "")

    def test_a_value_is_read_byte_for_byte(self, service: Emulator) -> None:
        assert in_bytes(service, "bytes") == EVERY_BYTE

    def test_a_value_on_the_command_line_is_set(self, service: Emulator) -> None:
        assert userdata(service, "role", "it's \u00e9") == (0, "", "")
        assert service.user_data["role"] == "it's \u00e9".encode()

    def test_an_empty_value_is_a_value(self, service: Emulator) -> None:
        assert userdata(service, "role", "").status == 0
        assert userdata(service, "role") == (0, "", "")

    @pytest.mark.parametrize("value", [EVERY_BYTE, b"", b"no newline", b"\n\n", b"\0"])
    def test_a_value_from_standard_input_is_set_byte_for_byte(
        self, service: Emulator, value: bytes
    ) -> None:
        assert in_bytes(service, "new", "-", stdin=value) == b""
        assert service.user_data["new"] == value
        assert in_bytes(service, "new") == value

    def test_the_largest_value_can_be_set_and_read(self, service: Emulator) -> None:
        value = b"x" * wire.USER_DATA_LIMIT
        in_bytes(service, "large", "-", stdin=value)
        assert in_bytes(service, "large") == value

    @pytest.mark.parametrize("size", [wire.USER_DATA_LIMIT + 1, 16 * 1024 * 1024])
    def test_a_value_that_is_too_large_is_not_sent(
        self, service: Emulator, size: int
    ) -> None:
        status, out, err = userdata(service, "role", "-", stdin="x" * size)
        assert (status, out) == (2, "")
        assert "larger than 1048576 bytes; nothing was set" in err
        assert service.requests == []

    def test_a_value_that_is_too_large_is_not_printed(self) -> None:
        large = {"large": b"x" * (wire.USER_DATA_LIMIT + 1)}
        with Emulator(user_data=large) as service:
            done = run("scw-userdata", "--url", service.url, "large")
            asked = len(service.requests)
        said = "scw-userdata: the value is larger than 1048576 bytes\n"
        assert done == (1, "", said)
        assert asked == 1, "it will be as large the next time"

    def test_a_key_is_deleted(self, service: Emulator) -> None:
        assert userdata(service, "-d", "role") == (0, "", "")
        assert "role" not in service.user_data

    @pytest.mark.parametrize("words", [["none"], ["-d", "none"]])
    def test_a_key_that_is_not_there_is_status_3(
        self, service: Emulator, words: list[str]
    ) -> None:
        said = "scw-userdata: no such key in the user data: none\n"
        assert userdata(service, *words) == (3, "", said)

    @pytest.mark.parametrize("words", [["Rolle"], ["-d", "roles"]])
    def test_for_a_missing_key_similar_keys_are_named(
        self, service: Emulator, words: list[str]
    ) -> None:
        said = f"scw-userdata: no such key in the user data: {words[-1]} (near: role)\n"
        assert userdata(service, *words) == (3, "", said)

    def test_a_missing_key_is_reported_even_if_the_list_fails(
        self, service: Emulator
    ) -> None:
        service.set_faults(["user_data/404:1", "user_data/503"])
        done = run("scw-userdata", "--url", service.url, "rol")
        assert done == (3, "", "scw-userdata: no such key in the user data: rol\n")
        assert len(service.requests) == 2

    @pytest.mark.parametrize("status", ["400", "403"])
    def test_a_refusal_is_one_line_that_mentions_the_source_port(
        self, service: Emulator, status: str
    ) -> None:
        service.set_faults([f"user_data/{status}"])
        for words in ([], ["role"], ["role", "db"], ["-d", "role"]):
            done = run("scw-userdata", "--url", service.url, *words)
            assert (done.status, done.out) == (1, "")
            assert f"answered {status}, as it does where the source port" in done.err
            assert done.err.count("\n") == 1
        assert len(service.requests) == 4, "a refusal was tried again"

    @pytest.mark.parametrize(
        "key", ["a/b", "a b", "../conf", "a%2fb", "a?b=c#d", "\u00e9"]
    )
    def test_a_key_is_one_segment_of_the_path_whatever_is_in_it(
        self, service: Emulator, key: str
    ) -> None:
        assert userdata(service, key, "value").status == 0
        assert service.user_data[key] == b"value"

    @pytest.mark.parametrize(
        "fault", ["403", "404", "429", "503", "html", "redirect", "garbage", "truncate"]
    )
    def test_an_error_is_never_taken_for_a_value(
        self, service: Emulator, fault: str
    ) -> None:
        service.set_faults([f"user_data/{fault}"])
        status, out, err = userdata(service, "role")
        assert status == (3 if fault == "404" else 1)
        assert out == ""
        assert err.startswith("scw-userdata: ")
        assert err.count("\n") == 1

    def test_a_failure_that_passes_is_tried_again(self, service: Emulator) -> None:
        service.set_faults(["user_data/503:2"])
        assert in_bytes(service, "role") == b"web"

    def test_setting_and_deleting_are_tried_again(self, service: Emulator) -> None:
        service.set_faults(["user_data/503:1", "user_data/truncate:1", "429:1"])
        assert in_bytes(service, "new", "-", stdin=EVERY_BYTE) == b""
        assert service.user_data["new"] == EVERY_BYTE
        service.set_faults(["user_data/503:1", "user_data/reset:1"])
        assert in_bytes(service, "-d", "new") == b""
        assert "new" not in service.user_data

    def test_it_works_over_ipv6(self) -> None:
        with Emulator(host="::1", user_data={"role": b"web"}) as service:
            assert userdata(service, "role") == (0, "web", "")

    def test_a_value_like_an_option_is_set_after_two_dashes(
        self, service: Emulator
    ) -> None:
        assert userdata(service, "--", "role", "-d").status == 0
        assert service.user_data["role"] == b"-d"

    def test_the_source_port_is_below_1024_and_different_each_time(
        self, service: Emulator
    ) -> None:
        for _ in range(5):  # the port before is in TIME_WAIT
            assert userdata(service, "role").out == "web"
        ports = [request.client[1] for request in service.requests]
        assert all(600 <= port < 1024 for port in ports)
        assert len(set(ports)) == 5

    def test_the_vendors_variable_says_where_the_service_is(
        self, service: Emulator
    ) -> None:
        port = service.url.rpartition(":")[2]
        where = {"USERDATA_IP": "127.0.0.1", "METADATA_PORT": port}
        env = {**where, "METADATA_IP": "127.0.0.2"}
        assert run("scw-userdata", "role", env=env).out == "web"

    def test_the_variable_that_holds_no_address_is_named(self) -> None:
        status, out, err = run("scw-userdata", env={"USERDATA_IP": "no address"})
        assert (status, out) == (2, "")
        assert err.startswith("scw-userdata: USERDATA_IP and METADATA_PORT do not")

    def test_a_terminal_gets_no_control_characters(self, service: Emulator) -> None:
        assert "\x1b" not in shown("scw-userdata", "--url", service.url, "bytes")

    @pytest.mark.parametrize(
        ("value", "printed"), [("web", "web\r\n"), ("web\n", "web\r\n"), ("", "")]
    )
    def test_on_a_terminal_a_value_ends_with_one_newline(
        self, service: Emulator, value: str, printed: str
    ) -> None:
        assert run("scw-userdata", "--url", service.url, "role", value).status == 0
        assert shown("scw-userdata", "--url", service.url, "role") == printed
        assert run("scw-userdata", "--url", service.url, "role").out == value


@pytest.mark.parametrize("words", [[], ["role"], ["role", "db"], ["-d", "role"]])
def test_without_root_it_says_so_and_sends_nothing(
    service: Emulator, words: list[str]
) -> None:
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")  # as in a container
    if first.exists() and int(first.read_text()) < 1024:
        pytest.skip("here everybody has the ports below 1024")
    without = ["setpriv", "--bounding-set=-net_bind_service"]
    if os.geteuid() == 0 and shutil.which(without[0]) is None:
        pytest.skip("setpriv is not installed here")
    done = subprocess.run(
        [
            *(without if os.geteuid() == 0 else []),
            *(str(BIN / "scw-userdata"), f"--url={service.url}", *words),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "scw-userdata: only root may do this:"
        " user data needs a source port below 1024\n"
    )
    assert service.requests == []


@pytest.mark.parametrize(
    "words",
    [
        ["-d"],
        ["-d", "a", "b"],
        ["a", "b", "c"],
        [""],
        ["."],
        [".."],
        ["x" * 129],
        ["a\nHost: elsewhere"],
        ["\x1b[31m"],
        ["-x"],
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_line(words: list[str]) -> None:
    status, out, err = run("scw-userdata", *words)
    assert (status, out) == (2, "")
    assert err.startswith("scw-userdata: ")
    assert err.count("\n") == 1
    assert err.removesuffix("\n").isprintable()
