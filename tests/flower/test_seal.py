"""Answers are sealed: only the node to which a message was sent can answer it, once."""

from __future__ import annotations

import copy

import pytest
import torch
from flwr.app import Message
from helpers import federations
from helpers.grids import Grid, Node, identify, lay_out

from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.federation.messages import Update
from h2tune.flower import seal
from h2tune.flower.coordinator.app import coordinate
from h2tune.flower.coordinator.roster import pem
from h2tune.flower.deploy.credentials import node_key
from h2tune.flower.load import load_coordinator
from h2tune.flower.messages import pack, parts


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Return private key files and public keys (PEM) of two nodes."""
    folder = tmp_path_factory.mktemp("keys")
    return {name: (folder / name, pem(node_key(folder / name, name))) for name in ("one", "two")}


def asked():
    message = pack({"settings": "{}"})
    return message, seal.number(message)


def answer_of(value: float = 1.0):
    return pack({"events": "[]"}, Update("one", 0, 8, {"x": torch.full((2,), value)}))


def test_an_honest_answer_passes(keys):
    message, nonce = asked()
    private, public = keys["one"]
    assert seal.fault(seal.seal(answer_of(), message, private), nonce, public) == ""
    assert seal.fault(seal.seal(answer_of(), message, None), nonce, b"") == ""
    assert len(nonce) == 32 and nonce != asked()[1]


def test_answers_in_anothers_name_old_ones_and_altered_ones_are_refused(keys):
    message, nonce = asked()
    private, public = keys["one"]
    stolen, _ = keys["two"]
    good = seal.seal(answer_of(), message, private)
    assert "another key" in seal.fault(seal.seal(answer_of(), message, stolen), nonce, public)
    assert "not signed" in seal.fault(seal.seal(answer_of(), message, None), nonce, public)
    assert "number" in seal.fault(good, asked()[1], public)  # an answer to another message
    assert "number" in seal.fault(answer_of(), nonce, public)
    replayed = copy.deepcopy(good)
    replayed["head"]["nonce"] = later = asked()[1]
    assert "another key" in seal.fault(replayed, later, public)
    for part in ("head", "tensors"):
        altered = copy.deepcopy(good)
        altered[part] = pack({"events": "[1]"}, Update("one", 0, 8, {"x": torch.full((2,), 2.0)}))[part]
        if part == "head":
            altered["head"]["nonce"], altered["head"]["signature"] = nonce, good["head"]["signature"]
        assert parts(altered) != parts(good)
        assert "another key" in seal.fault(altered, nonce, public)


def test_an_answer_of_another_version_and_a_reason_without_a_signature_say_so(keys):
    message, nonce = asked()
    old = answer_of()
    old["head"]["format"] = "h2tune-1"
    assert "format 'h2tune-1'" in seal.fault(old, nonce, keys["one"][1])
    reason = seal.seal(pack({"reason": "the node's key cannot be used"}), message, None)
    assert "it says: the node's key cannot be used" in seal.fault(reason, nonce, keys["one"][1])


@pytest.mark.parametrize("signature", ["", "not base64 ü", "AAAA", "A" * 200])
def test_a_signature_that_is_none_is_refused(keys, signature):
    message, nonce = asked()
    answer = seal.seal(answer_of(), message, keys["one"][0])
    answer["head"]["signature"] = signature
    assert seal.fault(answer, nonce, keys["one"][1])


@pytest.mark.parametrize("public", [b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_a_public_key_that_is_none_signs_nothing(keys, public):
    message, nonce = asked()
    assert "another key" in seal.fault(seal.seal(answer_of(), message, keys["one"][0]), nonce, public)


def test_a_private_key_that_is_none_is_an_error(tmp_path):
    message, _ = asked()
    with pytest.raises(H2TuneError, match="key cannot be used"):
        seal.seal(answer_of(), message, tmp_path / "missing")
    (tmp_path / "node").write_text("no key")
    with pytest.raises(H2TuneError, match="key cannot be used"):
        seal.seal(answer_of(), message, tmp_path / "node")


class KeyedGrid(Grid):
    """A grid whose nodes have the keys of the kit."""

    def get_nodes(self):
        found = (self.parties / "coordinator/keys" / f"{name}.pub" for name in self.names)
        return [Node(i, pem(key.read_text())) for i, key in enumerate(found, 1)]


class ForgingGrid(KeyedGrid):
    """A grid on which another member answers the first message of every round to `one`, before `one` does."""

    def run(self, name, kind, message):
        answer = super().run(name, kind, message)
        before = sum(n == name and k == kind for n, k, _ in self.seen)
        if name == "one" and kind == "train" and before % 2 == 0:
            key = self.parties / "members/two/node"
            return seal.seal(pack({"events": "[]"}, Update("one", 0, 8, {})), message.content, key)
        return answer


def coordinated(grid, parties):
    file = load_coordinator(parties / "coordinator" / "coordinator.toml")
    times = {"deadline": 240.0, "patience": 60.0, "gather": 60.0}
    return coordinate(grid, file.model_copy(update=times))


def test_members_sign_what_they_send_and_an_answer_in_anothers_name_changes_nothing(
    tmp_path, monkeypatch, caplog
):
    identify(monkeypatch)
    parties = lay_out(federations.federation(tmp_path), tmp_path)
    plain = KeyedGrid(parties, names=("one", "two"))
    honest = coordinated(plain, parties)
    assert all(m.content["head"]["signature"] for _, _, m in plain.seen if isinstance(m, Message))
    for name in ("one", "two"):
        for path in (p for p in (parties / "members" / name / "private").iterdir() if p.is_dir()):
            path.rename(path.with_name(path.name[::-1]))  # its state: the next run starts anew
    (parties / "coordinator/run").rename(parties / "coordinator/before")
    honest = parties / "coordinator/before"
    with caplog.at_level("WARNING", logger="flwr.h2tune"):
        forged = coordinated(ForgingGrid(parties, names=("one", "two")), parties)
    assert "'one': an answer is signed with another key" in caplog.text
    states = [(run / "server/round-0002/state.safetensors").read_bytes() for run in (honest, forged)]
    assert states[0] == states[1]
    assert not [e for e in read_events(forged / "events.jsonl") if e["event"] == "client_failed"]
