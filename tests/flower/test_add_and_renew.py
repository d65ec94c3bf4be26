"""Changes to a kit that is in use: a member is added, certificates are renewed."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import tomllib
from datetime import UTC, datetime, timedelta

import pytest
from helpers import federations

from h2tune.config import load
from h2tune.errors import H2TuneError

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from h2tune.flower import peers
from h2tune.flower.deploy import credentials, kit, members, renewal
from h2tune.flower.load import load_coordinator, load_member_file


def content_of(parties) -> dict[str, bytes]:
    return {str(p.relative_to(parties)): p.read_bytes() for p in sorted(parties.rglob("*")) if p.is_file()}


@pytest.fixture
def made(tmp_path):
    """A kit of two members, and its federation file with a third."""
    content = federations.federation(
        tmp_path,
        (("one", "llama", 4), ("three", "gpt2", 4), ("two", "bert", 8)),
        data={"train": 8, "test": 4},
    )
    two = {**content, "client": [c for c in content["client"] if c["name"] != "three"]}
    kit.init(load(federations.write(tmp_path, two)), tmp_path / "parties", host="fed.example.org", port=9555)
    return tmp_path / "parties", content, tmp_path


def added(made, content, name: str = "three"):
    parties, _, folder = made
    return members.add_member(load(federations.write(folder, content)), parties, name)


def test_a_member_that_is_added_has_what_the_first_ones_have_and_their_folders_stay(made):
    parties, content, _ = made
    content["client"][1]["model"] = content["client"][0]["model"]  # of the same family: gpt2 has other roles
    file = parties / "coordinator" / "coordinator.toml"
    file.write_text("# agreed in May\n" + file.read_text())
    before = content_of(parties)
    folder = added(made, content)
    after = content_of(parties)
    new = {name for name in after if name not in before}
    assert {name for name in before if after[name] != before[name]} == {"coordinator/coordinator.toml"}
    old = {
        name.replace("/one", "/three").replace("-one", "-three")
        for name in before
        if name.startswith(("members/one/", "coordinator/keys/one"))
    }
    assert new == old
    text = file.read_text()
    assert text.startswith(
        "# agreed in May\n" + before["coordinator/coordinator.toml"].decode().splitlines()[1]
    )
    one, _, three = load_coordinator(file).member
    assert (three.name, three.rank, three.depth, three.examples) == ("three", 4, one.depth, 8)
    assert three.key == (folder / "node.pub").read_text().strip() != one.key
    assert load_member_file(folder / "member.toml").superlink == "fed.example.org:9555"
    assert (folder / "node").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (lambda c: None, "three", "role 'attn.qkv' is not shared in this federation"),
        (lambda c: None, "one", "'one': is a member already"),
        (lambda c: None, "thre", r"has no client 'thre' \(did you mean 'three'\?\)"),
        (lambda c: c.update(name="other"), "three", "the file is of 'other'"),
        (lambda c: c["client"][1].update(rank=64), "three", "rank 64 is above R = 8"),
    ],
)
def test_a_member_that_does_not_fit_is_refused_and_nothing_is_written(made, change, name, message):
    parties, content, _ = made
    change(content)
    before = content_of(parties)
    with pytest.raises(H2TuneError, match=message):
        added(made, content, name)
    assert content_of(parties) == before


@pytest.mark.parametrize("begun", [False, True])
def test_with_secure_aggregation_a_member_is_added_before_the_run_begins_only(tmp_path, begun):
    pytest.importorskip("cryptography", reason="pip install 'h2tune[secure]'")
    clients = [(name, "llama", 4) for name in ("one", "two", "three", "four")]
    server = {"secure_aggregation": True, "min_clients": 3}
    content = federations.federation(tmp_path, clients, server=server, data={"train": 8, "test": 4})
    three = {**content, "client": content["client"][:3]}
    kit.init(load(federations.write(tmp_path, three)), tmp_path / "parties", host="localhost")
    run = tmp_path / "parties" / "coordinator" / "run"
    if begun:
        run.mkdir()
        (run / "events.jsonl").touch()
        with pytest.raises(H2TuneError, match="with secure aggregation its number of members is fixed"):
            added((tmp_path / "parties", content, tmp_path), content, "four")
    else:
        folder = added((tmp_path / "parties", content, tmp_path), content, "four")
        member = load_member_file(folder / "member.toml")
        assert member.secure_aggregation and member.client.name in peers.signer_of(member).names
        assert len({file.read_bytes() for file in folder.parent.glob(f"*/{peers.FILE}")}) == 1
        assert len(load_coordinator(run.parent / "coordinator.toml").member) == 4


@pytest.fixture
def home(tmp_path):
    credentials.certificates(tmp_path / "tls", "127.0.0.1")
    address = '[address]\nhost = "127.0.0.1"\nport = 9443\ncontrol_port = 9091\n'
    (tmp_path / "coordinator.toml").write_text(address)
    return tmp_path


def shakes_hands(home, authority) -> bool:
    """Return whether who trusts a CA accepts the server's certificate, over a real connection."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(home / "tls" / "server.crt", home / "tls" / "server.key")
    client = ssl.create_default_context(cafile=str(authority))
    one, other = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(one, server_side=True).close()
        except ssl.SSLError:
            one.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(other, server_hostname="127.0.0.1").close()
    except ssl.SSLCertVerificationError:
        return False
    finally:
        other.close()
        thread.join()
    return True


def test_a_new_certificate_of_the_same_ca_needs_nothing_from_members(home):
    before = {path.name: path.read_bytes() for path in (home / "tls").iterdir()}
    lines = list(renewal.renew(home / "coordinator.toml"))
    after = {path.name: path.read_bytes() for path in (home / "tls").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"server.key", "server.crt"}
    assert any("Members need nothing" in line for line in lines)
    assert shakes_hands(home, home / "tls" / "ca.crt")
    assert (home / "tls" / "server.key").stat().st_mode & 0o777 == 0o600


def test_a_new_ca_is_trusted_beside_the_old_one_until_all_members_have_it(home):
    old, late = home / "old.crt", datetime.now(UTC) + timedelta(days=credentials.AUTHORITY_DAYS - 800)
    shutil.copy(home / "tls" / "ca.crt", old)
    shutil.copytree(home / "tls", home / "before" / "tls")
    lines = list(renewal.renew(home / "coordinator.toml", late))
    assert any("Send this file to every member" in line for line in lines)
    new = home / "tls" / "ca.crt"
    assert shakes_hands(home, new) and not shakes_hands(home, old)
    assert shakes_hands(
        home / "before", new
    )  # a member with the new file, before the coordinator starts again
    list(renewal.renew(home / "coordinator.toml"))  # the next one is by the new CA
    assert shakes_hands(home, new)
    assert new.read_text().count("BEGIN") == 2


def test_an_expired_ca_is_replaced_and_no_longer_trusted(home):
    expired = datetime.now(UTC) + timedelta(days=credentials.AUTHORITY_DAYS + 1)
    list(renewal.renew(home / "coordinator.toml", expired))
    assert (home / "tls" / "ca.crt").read_text().count("BEGIN") == 1
    assert shakes_hands(home, home / "tls" / "ca.crt")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda home: (home / "tls" / "ca.key").unlink(), r"ca\.key: is missing"),
        (lambda home: (home / "tls" / "ca.crt").write_text("none"), r"ca\.crt: is no certificate"),
        (lambda home: (home / "coordinator.toml").write_text("name = 'x'"), "'address' is missing"),
    ],
)
def test_what_is_missing_is_said_and_the_certificate_stays(home, break_it, message):
    before = (home / "tls" / "server.crt").read_bytes()
    break_it(home)
    with pytest.raises(H2TuneError, match=message):
        list(renewal.renew(home / "coordinator.toml"))
    assert (home / "tls" / "server.crt").read_bytes() == before


def test_the_coordinators_file_still_parses_with_its_address(made):
    parties, _, _ = made
    raw = tomllib.loads((parties / "coordinator" / "coordinator.toml").read_text())
    assert raw["address"] == {"host": "fed.example.org", "port": 9555, "control_port": 9091}
    done = subprocess.run(
        ["openssl", "verify", "-CAfile", "ca.crt", "-verify_hostname", "fed.example.org", "server.crt"],
        cwd=parties / "coordinator" / "tls",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
