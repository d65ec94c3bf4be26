"""The kit: what is in the parties' folders, and which federations and files are refused."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import tomllib

import pytest
import tomli_w
from helpers import federations
from typer.testing import CliRunner

from h2tune.cli import deploy, main
from h2tune.config import load
from h2tune.errors import H2TuneError

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from helpers.grids import lay_out

from h2tune.flower import peers
from h2tune.flower.deploy import contents, credentials, kit, pages
from h2tune.flower.files import CoordinatorFile
from h2tune.flower.load import load_coordinator, load_member_file, validated


def test_the_kit_keeps_secrets_private_and_paths_from_the_coordinator(parties):
    private = [parties / "members" / n / "node" for n in ("one", "two")]
    private += [parties / "coordinator" / k for k in ("tls/ca.key", "tls/server.key", "audit")]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in private)
    assert not list((parties / "members").rglob("ca.key"))
    assert not list((parties / "coordinator").rglob("node"))
    text = (parties / "coordinator" / "coordinator.toml").read_text()
    assert "jsonl" not in text and "models" not in text and "task" not in text
    nginx = (parties / "coordinator" / "nginx.conf").read_text()
    assert nginx.count("proxy_pass ") == 1 and "https://127.0.0.1:9091" in nginx


def service(name: str) -> list[list[str]]:
    return [
        ["useradd", "--system", "--home-dir", "/srv/h2tune", "h2tune"],
        ["chown", "-R", "h2tune:", f"/srv/h2tune/{name}"],
        ["cp", f"h2tune-{name}.service", "/etc/systemd/system/"],
        ["systemctl", "enable", "--now", f"h2tune-{name}"],
        ["H2TUNE_USER=$(id -u):$(id -g)", "docker", "compose", "up"],
    ]


def test_the_readmes_commands_are_those_of_the_party(parties):
    for page, commands in (
        (
            parties / "coordinator" / "README.md",
            [
                ["h2tune", "deploy", "start", "coordinator.toml"],
                *service("coordinator"),
                ["nginx", "-p", "$PWD", "-c", "nginx.conf"],
                ["flower-superlink", "--host", "127.0.0.1", "--port", "9091"],
                ["for", "key", "in", "keys/*.pub;", "do", "flwr", "supernode", "register", "$key", "h2tune"],
                ["flwr", "run", "app", "h2tune", "--run-config", 'coordinator="$PWD/coordinator.toml"'],
            ],
        ),
        (
            parties / "members" / "two" / "README.md",
            [
                ["rm", "node", "node.pub"],
                ["h2tune", "deploy", "check", "member.toml"],
                ["h2tune", "deploy", "start", "member.toml"],
                *service("two"),
                ["flower-supernode", "--superlink", "127.0.0.1:9443"],
                ["h2tune", "deploy", "worker", "member.toml"],
            ],
        ),
    ):
        code = re.findall(r"^    (.*)$", page.read_text(), flags=re.MULTILINE)
        lines = "\n".join(code).replace("\\\n", "").splitlines()
        parsed = [shlex.split(line) for line in lines if not line.startswith("export ")]
        assert [line[: len(c)] for line, c in zip(parsed, commands, strict=True)] == commands
        assert sum(line.startswith("export ") for line in lines) == 2


def test_flowers_app_names_components_that_are_there():
    for name, kind in (("serverapp", ServerApp), ("clientapp", ClientApp)):
        module, _, attribute = contents.app_content()["tool"]["flwr"]["app"]["components"][name].partition(
            ":"
        )
        assert isinstance(getattr(importlib.import_module(module), attribute), kind)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"server": {"strategy": "fedit"}}, "'fedit' runs on one machine"),
        ({"server": {"strategy": "local"}}, "'local' runs on one machine"),
        ({"experimental": {"alone": True}}, "experimental.alone: training every client alone"),
    ],
)
def test_what_is_for_one_machine_is_refused_before_anything_is_written(tmp_path, section, message):
    file = federations.write(tmp_path, federations.federation(tmp_path, **section))
    with pytest.raises(H2TuneError, match=message):
        kit.init(load(file), tmp_path / "parties", host="127.0.0.1")
    assert not (tmp_path / "parties").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["server"].update(shared_rank="auto"), "server.shared_rank must be a number"),
        (lambda c: c["server"].update(strategy="fedit"), "runs on one machine"),
        (lambda c: c.update(dedline=3.0), "did you mean"),
        (lambda c: c["member"].append(dict(c["member"][0])), "two members are called 'one'"),
        (lambda c: c["train"].update(arguments={"push_to_hub": True}), "each member's own"),
        (lambda c: c.update(roles=["attn.x"]), "unknown role 'attn.x'"),
    ],
)
def test_a_coordinators_file_is_strict(parties, tmp_path, change, message):
    content = tomllib.loads((parties / "coordinator" / "coordinator.toml").read_text())
    change(content)
    (tmp_path / "c.toml").write_text(tomli_w.dumps(content))
    with pytest.raises(H2TuneError, match=message):
        load_coordinator(tmp_path / "c.toml")


def test_a_part_of_the_data_is_in_its_members_file_alone(tmp_path):
    content = federations.federation(tmp_path, data={"train": 8, "test": 4})
    content["experimental"] = {"parts": {"two": [1, 2]}}
    home = lay_out(content, tmp_path)
    assert "parts" not in (home / "coordinator" / "coordinator.toml").read_text()
    settings = load_coordinator(home / "coordinator" / "coordinator.toml").settings
    parts = {}
    for name in ("one", "two"):
        file = home / "members" / name / "member.toml"
        parts[name] = load_member_file(file).joined(settings, file.parent).experimental.part_of(name)
    assert parts == {"one": (0, 1), "two": (1, 2)}
    changed = tomllib.loads((home / "coordinator" / "coordinator.toml").read_text())
    changed["experimental"]["parts"] = {"two": [1, 2]}
    with pytest.raises(H2TuneError, match="a member's file has its own part"):
        validated(CoordinatorFile, changed, "file")


@pytest.mark.parametrize(("host", "kind"), [("10.1.2.3", "ip"), ("fed.example.org", "hostname")])
def test_the_certificate_is_valid_for_members_and_for_the_proxy(tmp_path, host, kind):
    credentials.certificates(tmp_path / "tls", host)
    name = re.search(r"proxy_ssl_name (\S+);", pages.nginx(9443, 9091)).group(1)
    for option in ((f"-verify_{kind}", host), ("-verify_hostname", name)):
        verify = ["openssl", "verify", "-CAfile", "ca.crt", *option, "server.crt"]
        done = subprocess.run(verify, check=False, cwd=tmp_path / "tls", capture_output=True)
        assert done.returncode == 0, option


def test_without_flower_one_line_says_what_to_install(parties, monkeypatch):
    monkeypatch.setattr(deploy, "installed", lambda: False)
    with pytest.raises(H2TuneError, match=r"flwr: not installed. .* pip install 'h2tune\[flower\]'"):
        deploy.deploy_worker(parties / "members" / "one" / "member.toml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "https://fed.example.org"}, "is not a name or an address"),
        ({"host": "fed.example.org:9443"}, "is not a name or an address"),
        ({"host": "fed example"}, "is not a name or an address"),
        ({"host": "föderation.example"}, "is not a name or an address"),
        ({"host": "fed_1.example"}, "is not a name or an address"),
        ({"host": "-fed.example"}, "is not a name or an address"),
        ({"host": ""}, "is not a name or an address"),
        ({"host": "300.1.2.3"}, "is not a name or an address"),
        ({"host": "10.0.0"}, "is not a name or an address"),
        ({"host": f"{64 * 'a'}.example"}, "at most 63 characters between two dots"),
        ({"host": "0.0.0.0"}, "every address of a machine"),
        ({"host": "::"}, "every address of a machine"),
        ({"port": 99_999}, "99999 is not a port"),
        ({"port": 0}, "0 is not a port"),
        ({"control_port": -1}, "-1 is not a port"),
        ({"port": 9091, "control_port": 9091}, "both ports are 9091"),
    ],
)
def test_addresses_that_cannot_work_are_refused_with_the_rule(tmp_path, options, message):
    content = load(federations.write(tmp_path, federations.federation(tmp_path)))
    with pytest.raises(H2TuneError, match=message):
        kit.init(content, tmp_path / "kit", **{"host": "localhost", **options})
    assert not (tmp_path / "kit").exists()


@pytest.mark.parametrize("host", ["fed.example.org", "10.0.0.7", "2001:db8::1", "LOCALHOST", "a"])
def test_names_and_addresses_are_taken(host):
    assert kit.checked_address(host, 9443, 9091).host == host


def test_an_ipv6_address_stands_in_brackets_before_the_port(tmp_path):
    content = load(federations.write(tmp_path, federations.federation(tmp_path)))
    kit.init(content, tmp_path / "kit", host="::1")
    file = load_member_file(tmp_path / "kit" / "members" / "one" / "member.toml")
    assert file.superlink == "[::1]:9443"
    assert "listen [::]:9443 ssl;" in (tmp_path / "kit" / "coordinator" / "nginx.conf").read_text()


@pytest.mark.parametrize(("weighting", "there"), [("uniform", True), ("examples", True), ("uniform", False)])
def test_a_member_s_weight_is_bounded_by_the_rows_of_its_file(tmp_path, weighting, there):
    content = federations.federation(tmp_path, server={"weighting": weighting})
    del content["data"]
    if not there:
        content["client"][0]["task"]["file"] = "elsewhere.jsonl"
    kit.init(load(federations.write(tmp_path, content)), tmp_path / "kit", host="localhost")
    (one, two) = load_coordinator(tmp_path / "kit" / "coordinator" / "coordinator.toml").member
    assert (one.examples, two.examples) == (128 if there else None, 128)


def test_a_weight_that_nobody_can_bound_is_refused(tmp_path):
    content = federations.federation(tmp_path, server={"weighting": "examples"})
    del content["data"]
    content["client"][0]["task"]["file"] = "elsewhere.jsonl"
    with pytest.raises(H2TuneError, match="client 'one': how many examples it may weigh is not known here"):
        kit.init(load(federations.write(tmp_path, content)), tmp_path / "kit", host="localhost")


@pytest.fixture(scope="module")
def secure_parties(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secure")
    clients = (("one", "llama", 4), ("two", "bert", 8), ("three", "llama", 2))
    server = {"min_clients": 2, "secure_aggregation": True}
    return lay_out(federations.federation(folder, clients, server=server), folder)


def test_each_member_of_a_kit_with_secure_aggregation_has_all_members_keys(secure_parties):
    files = [secure_parties / "members" / name / peers.FILE for name in ("one", "two", "three")]
    assert len({file.read_bytes() for file in files}) == 1
    done = CliRunner().invoke(
        main.app, ["deploy", "peers", str(secure_parties / "coordinator" / "coordinator.toml")]
    )
    assert done.stdout == files[0].read_text()
    assert peers.FILE in (files[0].parent / "README.md").read_text()
    for file in files:
        member = load_member_file(file.with_name("member.toml"))
        signer = peers.signer_of(member)
        assert set(signer.names) == {"one", "two", "three"}
        signature = signer.sign(b"x")
        assert [n for n in sorted(signer.names) if signer.is_signed(n, b"x", signature)] == [
            member.client.name
        ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda keys: keys["member"].pop(), "2 members: secure aggregation is for 3 to 100"),
        (lambda keys: keys["member"][0].update(name="two"), "'two' occurs twice"),
        (lambda keys: keys["member"][0].update(key=keys["member"][1]["key"]), "'three' and 'one' have one key"),
        (lambda keys: keys["member"][1].update(key="ssh-rsa AAAA"), "key of 'three' is not one of ssh-keygen"),
        (lambda keys: keys.update(federation="other"), "is of 'other', not of 'tiny'"),
        (lambda keys: keys["member"][0].update(name="four"), "has none of 'one'"),
        (
            lambda keys: [m.update(key=k) for m, k in zip(
                keys["member"], [m["key"] for m in reversed(keys["member"])], strict=True)],
            "has another key of 'one' than its node's",
        ),
    ],
)  # fmt: skip
def test_a_file_of_members_keys_is_strict(secure_parties, tmp_path, change, message):
    folder = secure_parties / "members" / "one"
    content = tomllib.loads((folder / peers.FILE).read_text())
    change(content)
    (tmp_path / "p.toml").write_text(tomli_w.dumps(content))
    member = load_member_file(folder / "member.toml").model_copy(update={"peers": str(tmp_path / "p.toml")})
    with pytest.raises(H2TuneError, match=message):
        peers.signer_of(member)
