"""The pre-flight checks of a member's machine."""

from __future__ import annotations

import socket
import ssl
import threading
import tomllib

import pytest
import tomli_w

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from h2tune.flower.member import preflight
from h2tune.flower.member.preflight import check


def results(file):
    return {result.subject: result for result in check(file)}


def test_a_check_names_what_is_wrong(parties, tmp_path):
    by_subject = results(parties / "members" / "one" / "member.toml")
    assert all(by_subject[subject].passed for subject in ("file", "folder", "model", "data", "memory"))
    connection = by_subject["connection"]
    assert not connection.passed and "cannot be reached" in connection.detail
    content = tomllib.loads((parties / "members" / "one" / "member.toml").read_text())
    content["client"]["task"]["file"] = "nowhere.jsonl"
    (tmp_path / "m.toml").write_text(tomli_w.dumps(content))
    assert "nowhere.jsonl" in results(tmp_path / "m.toml")["data"].detail


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"superlink": None}, "superlink is missing"),
        ({"superlink": "localhost"}, "'localhost' is not HOST:PORT"),
        ({"root_certificates": None}, "root_certificates is missing"),
        ({"root_certificates": "nowhere.crt"}, "No such file"),
    ],
)
def test_a_check_names_a_missing_part_of_the_connection(parties, change, detail):
    file = parties / "members" / "one" / "member.toml"
    content = tomllib.loads(file.read_text()) | change
    other = file.with_name("connection.toml")
    other.write_text(tomli_w.dumps({key: value for key, value in content.items() if value is not None}))
    connection = results(other)["connection"]
    assert not connection.passed and detail in connection.detail


def test_a_check_says_who_renews_an_expired_certificate(parties, monkeypatch):
    error = ssl.SSLCertVerificationError("certificate has expired")
    error.verify_code, error.verify_message = 10, "certificate has expired"
    monkeypatch.setattr(preflight, "_fleet_answer", lambda *_: (_ for _ in ()).throw(error))
    connection = results(parties / "members" / "one" / "member.toml")["connection"]
    assert (
        not connection.passed and "has expired" in connection.detail and "deploy renew" in connection.detail
    )


@pytest.mark.parametrize(
    ("answer", "passed"), [(b"HTTP/1.1 405 No\r\n\r\n", True), (b"HTTP/1.1 502 Bad\r\n\r\n", False)]
)
def test_a_check_notices_a_proxy_without_a_superlink(parties, answer, passed):
    tls = parties / "coordinator" / "tls"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        plain, _ = listener.accept()
        with plain, context.wrap_socket(plain, server_side=True) as secure:
            secure.recv(1024)
            secure.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    file = parties / "members" / "one" / "member.toml"
    content = tomllib.loads(file.read_text()) | {"superlink": f"127.0.0.1:{listener.getsockname()[1]}"}
    (file.parent / "other.toml").write_text(tomli_w.dumps(content))
    with listener:
        connection = results(file.parent / "other.toml")["connection"]
        server.join(10)
    assert connection.passed == passed and ("502" in connection.detail) != passed
