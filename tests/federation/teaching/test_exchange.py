"""How the server combines what clients send, and which settings of the exchange are refused."""

from __future__ import annotations

import pytest
import torch
from helpers import federations
from helpers.taught import THREE, content

from h2tune.config import load, parse
from h2tune.errors import H2TuneError
from h2tune.federation.teaching.exchange import MOST_PEERS, combined, copies, label_set


def test_other_labels_share_nothing():
    direction = {"direction": torch.eye(3, 2) / 2**0.5}
    received, between = combined(
        "directions",
        {
            "a": (direction, {"labels": label_set(("x", "y")), "unable": ""}),
            "b": (direction, {"labels": label_set(("y", "x")), "unable": ""}),
            "c": (direction, {"labels": label_set(("x", "z")), "unable": ""}),
            "d": ({}, {"labels": label_set(("x", "y")), "unable": "its answers are free text"}),
        },
    )
    weights = {name: peers["weights"] for name, peers in between.items()}
    assert between["a"]["cosines"] == {"b": 1.0}
    assert set(weights["a"]) == {"b"} and set(weights["b"]) == {"a"} and weights["c"] == weights["d"] == {}
    assert 0 < weights["a"]["b"] == weights["b"]["a"] <= 1
    assert not bool(received["c"]["peers"].any()) and received["d"] == {}


def test_of_very_many_peers_events_tell_those_with_the_largest_numbers():
    facts = {"labels": label_set(("x", "y")), "unable": ""}
    draw = torch.Generator().manual_seed(0)
    sent = [torch.nn.functional.normalize(torch.randn(8, generator=draw), dim=0) for _ in range(199)]
    sent.append(-sent[3])  # somebody repeats another
    uploads = {
        f"c{i:03}": ({"direction": torch.stack([w, -w], 1) / 2**0.5}, facts) for i, w in enumerate(sent)
    }
    received, between = combined("directions", uploads)
    assert len(received) == 200 and received["c000"]["peers"].shape == (8, 2)
    for peers in between.values():
        assert MOST_PEERS <= len(peers["cosines"]) <= 2 * MOST_PEERS and set(peers["cosines"]) == set(
            peers["weights"]
        )
    largest = max(abs(float(sent[0] @ other)) for other in sent[1:])
    assert max(map(abs, between["c000"]["cosines"].values())) == pytest.approx(largest, abs=1e-3)
    assert "'c199'" in copies("c003", between["c003"])[0]["message"]


def test_directions_of_another_shape_harm_nobody_else():
    two, three = ({"direction": torch.eye(3, n) / n**0.5} for n in (2, 3))
    facts = {"labels": label_set(("x", "y")), "unable": ""}
    received, between = combined("directions", {"a": (two, facts), "b": (two, facts), "evil": (three, facts)})
    assert set(between["a"]["weights"]) == {"b"} and between["evil"]["weights"] == {}
    assert received["a"]["peers"].shape == (3, 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"basis": {"kind": "free", "consensus": True}}, "no common coordinates"),
        ({"basis": {"consensus": True}, "server": {"secure_aggregation": True}}, "hides each"),
        ({"basis": {"consensus": True}, "privacy": {"noise": "server"}}, "does not cover"),
    ],
)
def test_a_consensus_is_refused_where_it_cannot_be(tmp_path, changes, reason):
    base = federations.federation(tmp_path, THREE) | {"basis": {}}
    with pytest.raises(H2TuneError, match=reason):
        parse(base | changes, "file")


def test_a_consensus_is_a_choice_and_trains_all_parameters_in_one_pass(tmp_path):
    plain = load(federations.write(tmp_path, federations.on_anchored_basis(tmp_path)))
    taught = load(federations.write(tmp_path, federations.on_anchored_basis(tmp_path, consensus=True)))
    assert (plain.teaching, plain.experimental.alternation) == ("none", "step")
    assert (taught.teaching, taught.experimental.alternation) == ("directions", "joint")


def test_micro_batches_must_divide_the_public_texts_too(tmp_path):
    found = content(tmp_path)
    found["train"] |= {"batch_size": 8, "accumulation": 8}  # of four public texts none would be left
    with pytest.raises(H2TuneError, match="4 public texts do not divide into 8"):
        parse(found, "file")
