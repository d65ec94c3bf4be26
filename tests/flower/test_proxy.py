"""The kit's nginx in front of a server that counts what reaches it: members' paths only, and slow members get all."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from h2tune.flower.deploy import pages
from h2tune.flower.deploy.credentials import certificates

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
SIZE = 5_000_000
CONTROL = "/v1/control/list-runs"


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers every request with five megabytes, and keeps its path."""

    paths: list[str] = []  # noqa: RUF012 - of the class on purpose
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.paths.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(bytes(SIZE))

    do_GET = do_POST

    def log_message(self, *_: object) -> None: ...


def free_port() -> int:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        return end.getsockname()[1]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """Return the port of an nginx with the kit's configuration, and the paths that reached the server behind it."""
    home = tmp_path_factory.mktemp("parties") / "coordinator"
    home.mkdir(mode=0o700)
    certificates(home / "tls", "localhost")
    control, public = free_port(), free_port()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", control), Upstream)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "tls" / "server.crt", home / "tls" / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (home / "nginx.conf").write_text(pages.nginx(public, control))
    process = subprocess.Popen(["nginx", "-p", str(home), "-c", "nginx.conf", "-g", "daemon off;"])
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", public), 1):
            break
        time.sleep(0.05)
    yield home, public, Upstream.paths
    process.terminate()
    process.wait()
    server.shutdown()
    server.server_close()


def connected(home, port: int) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(home / "tls" / "ca.crt"))
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname="localhost")


def status(home, port: int, target: str) -> str:
    """Return the status of the answer to a request line that is sent as it is; "" if the connection is closed."""
    with connected(home, port) as end:
        end.sendall(
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
        )
        answer = end.recv(64).split(b" ")
        return answer[1].decode() if len(answer) > 1 else ""


def disguises() -> list[str]:
    """Return forty and more ways to write the path of Flower's control interface past a filter for /v1/fleet/."""
    up = ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", ".%2e/", "..%5c", "%2e./", "..;/", "..%00/", "..//"]
    found = [f"/v1/fleet/{step}control/list-runs" for step in up]
    found += [f"/v1/control/x%3f/../{step}fleet/pull-messages" for step in up]
    found += [
        f"/v1/control/list-runs{mark}/../../fleet/pull-messages"
        for mark in ("%3f", "%23", ";", "%00", "?", "#")
    ]
    found += [
        f"/v1/fleet/pull-messages{mark}/../../control/list-runs" for mark in ("%3f", "%23", ";", "?", "#")
    ]
    found += [
        "//v1/control/list-runs",
        "/v1//control/list-runs",
        "/V1/CONTROL/list-runs",
        "/v1/%63ontrol/list-runs",
    ]
    found += [
        "/%76%31/control/list-runs",
        "/v1/fleet/../control",
        "http://localhost" + CONTROL,
        "/v1/fleet/",
        "/v1/fleet",
    ]
    return [
        *found,
        CONTROL,
        "/v1/fleet/Pull-messages",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages?x=1",
    ]


@pytest.mark.parametrize("target", disguises())
def test_no_way_to_write_the_control_path_passes(proxy, target):
    home, port, reached = proxy
    reached.clear()
    assert status(home, port, target) in ("301", "404", "400", "405", "")
    assert not reached


def test_there_are_forty_ways():
    assert len(set(disguises())) >= 40


@pytest.mark.parametrize("path", ["pull-messages", "push-object", "get-run", "confirm-message-received"])
def test_members_paths_pass_as_they_are(proxy, path):
    home, port, reached = proxy
    reached.clear()
    assert status(home, port, f"/v1/fleet/{path}") == "200"
    assert reached == [f"/v1/fleet/{path}"]


def test_a_slow_member_gets_the_whole_answer_and_nothing_is_written_to_disk(proxy):
    home, port, _ = proxy
    with connected(home, port) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262144)
        end.sendall(b"POST /v1/fleet/pull-object HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        got = b""
        while b"\r\n\r\n" not in got:
            got += end.recv(4096)
        body = len(got.partition(b"\r\n\r\n")[2])
        while body < SIZE:
            time.sleep(0.002)
            body += len(end.recv(16384)) or pytest.fail(f"{body} of {SIZE} bytes came")
    assert body == SIZE
    assert not [name for folder, _, names in os.walk(home) for name in names if "tmp-" in folder]
