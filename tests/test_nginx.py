"""The commands against nginx: a real server, which this project did not write."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from installed import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Nginx = Callable[[str], str]

pytestmark = pytest.mark.usefixtures("commands")

SAMPLE = Path(__file__).parent / "samples" / "conf-routed-ipv4.json"
ACKNOWLEDGE = 'location = /state { return 200 "STATE_DETAIL=booted\\n"; }'
DOCUMENT = f"location = /conf {{ default_type application/json; alias {SAMPLE}; }}"


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """Return a function that serves some locations and returns the URL."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        pytest.skip("nginx is not installed here")
    started = []

    def serve(locations: str) -> str:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        (tmp_path / "nginx.conf").write_text(f"""
            daemon on; pid {tmp_path}/pid; error_log {tmp_path}/error.log;
            worker_processes 1;
            events {{ worker_connections 64; }}
            http {{
              access_log {tmp_path}/access.log;
              client_body_temp_path {tmp_path}/body;
              proxy_temp_path {tmp_path}/proxy; fastcgi_temp_path {tmp_path}/fast;
              uwsgi_temp_path {tmp_path}/uwsgi; scgi_temp_path {tmp_path}/scgi;
              limit_req_zone $binary_remote_addr zone=busy:64k rate=1r/s;
              server {{ listen 127.0.0.1:{port}; {locations} }}
            }}
        """)
        words = [program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
        # It goes into the background once it listens.
        subprocess.run(words, check=True, capture_output=True)
        started.append(words)
        return f"http://127.0.0.1:{port}"

    yield serve
    for words in started:
        subprocess.run([*words, "-s", "stop"], check=True, capture_output=True)


def test_the_agent_does_its_work(nginx: Nginx, tmp_path: Path) -> None:
    url = nginx(ACKNOWLEDGE + DOCUMENT)
    directory = tmp_path / "run"
    words = ("-d", "--no-dns", "--url", url, "--run-dir", str(directory))
    status, _, err = run("scw-signald", *words)
    assert (status, "acknowledged by " + url in err) == (0, True)
    assert (directory / "metadata.json").read_bytes() == SAMPLE.read_bytes()
    log = (tmp_path / "access.log").read_text()
    assert '"PATCH /state HTTP/1.1" 200' in log
    assert '"GET /conf?format=json HTTP/1.1" 200' in log


def test_metadata_is_printed(nginx: Nginx) -> None:
    url = nginx(DOCUMENT)
    assert run("scw-metadata", "--url", url, "hostname").out == "puffy\n"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("return 503;", "the service answered 503"),
        ("return 429;", "the service answered 429"),
        ("return 302 /elsewhere;", "the service refused: it answered 302"),
        ("return 403;", "the service refused: it answered 403"),
        ("return 200 '<html>';", "a web page in place of its answer"),
        ("return 200 'fine';", "sent, but the service did not confirm it"),
    ],
)
def test_a_failure_is_named(nginx: Nginx, location: str, reason: str) -> None:
    url = nginx(f"location / {{ {location} }}")
    _, _, err = run("scw-signal-state", "--once", "--url", url, "booted")
    assert reason in err


def test_a_connection_that_is_closed_without_a_reply_is_named(nginx: Nginx) -> None:
    url = nginx("location / { return 444; }")
    _, _, err = run("scw-signal-state", "--once", "--url", url, "booted")
    # The kernel resets it if nginx has not read all of the request.
    assert "the reply broke off or is not HTTP" in err or "reset by peer" in err


def test_a_service_that_sheds_load_gets_the_signal_in_the_end(
    nginx: Nginx, tmp_path: Path
) -> None:
    # nginx would run `return` before it checks the limit. But it refuses PATCH for a
    # file after that, and error_page turns this 405 into the acknowledgement.
    url = nginx(
        "location = /state { limit_req zone=busy; limit_req_status 429;"
        f" error_page 405 =200 @taken; alias {SAMPLE}; }}"
        "location @taken { return 200 'STATE_DETAIL=booted\n'; }"
    )
    for _ in range(2):  # the second one comes too soon, and gets 429 at first
        assert run("scw-signal-state", "--url", url, "booted").status == 0
    log = (tmp_path / "access.log").read_text()
    assert [line.split()[8] for line in log.splitlines()][:2] == ["200", "429"]
