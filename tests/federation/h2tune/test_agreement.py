"""A view that agrees with nobody's is named, and a robust rule makes the coordinates without it."""

from __future__ import annotations

import pytest
import torch
from helpers import federations

import h2tune
from h2tune.events import check_event, read_events
from h2tune.federation.h2tune.agreement import CHANCE, agreed
from h2tune.functional.frames import agreement, common_coordinates, view

COUNT, SIZE = 400, 16


def drawn(*shape: int, seed: int):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def honest(number: int, width: int = 64):
    """Return the view of a model that reads sixteen common properties of the texts, and others of its own."""
    states = drawn(COUNT, SIZE, seed=0) @ drawn(SIZE, width, seed=10 + number)
    return view(states + 2 * drawn(COUNT, width, seed=100 + number), 32)


def hostile(number: int):
    """Return a view that says nothing of the texts, as large as a view can be."""
    return torch.linalg.qr(drawn(COUNT, 32, seed=1000 + number))[0]


def test_agreement_is_one_with_oneself_zero_by_chance_and_the_same_for_any_basis_of_a_span():
    one, turn = honest(1), torch.linalg.qr(drawn(32, 32, seed=5))[0]
    assert agreement(one, one) == pytest.approx(1.0, abs=1e-6)
    assert agreement(one @ turn, honest(2)) == pytest.approx(agreement(one, honest(2)), abs=1e-6)
    assert agreement(one, honest(2)) == pytest.approx(agreement(honest(2), one), abs=1e-9)
    by_chance = [agreement(honest(i), hostile(i)) for i in range(10)]
    assert max(map(abs, by_chance)) < CHANCE < agreement(one, honest(2))
    assert agreement(torch.zeros(COUNT, 3), one) == 0.0


@pytest.mark.parametrize("alike", [True, False])
def test_three_hostile_views_of_ten_are_left_out_and_change_nothing(alike):
    views = {f"member-{i}": honest(i) for i in range(7)}
    bad = {f"hostile-{i}": hostile(0 if alike else i) for i in range(3)}
    z, facts = agreed(views | bad, SIZE, 3)
    assert sorted(facts["left_out"]) == sorted(bad)
    assert torch.equal(z, common_coordinates([views[name] for name in sorted(views)], SIZE))
    of_all, facts = agreed(views | bad, SIZE, 0)
    assert not facts["left_out"] and not torch.equal(of_all, z)
    by_client = {name: facts["agreements"][name]["with_others"] for name in views | bad}
    assert max(by_client[name] for name in bad) <= CHANCE < min(by_client[name] for name in views)


def test_a_client_that_reads_something_else_is_a_warning_and_its_event_says_how_much_it_agrees(
    tmp_path, monkeypatch
):
    from h2tune.federation.h2tune import basis

    texts = tmp_path / "public.txt"
    texts.write_text("\n".join(federations.PUBLIC) + "\n")
    count = len(federations.PUBLIC)
    clients = [(name, "llama", 4) for name in ("one", "two", "three")]
    content = federations.federation(tmp_path, clients, train={"local_steps": 1}, server={"rounds": 1})
    content["basis"] = {"kind": "anchored", "texts": [str(texts)], "count": count, "consensus": False}
    true = basis.view

    def read(states, directions):
        seen.append(1)
        return true(states, directions) if len(seen) != 2 else torch.linalg.qr(drawn(count, 16, seed=1))[0]

    seen: list[int] = []
    monkeypatch.setattr(basis, "view", read)
    h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    events = read_events(tmp_path / "run" / "events.jsonl")
    agreements = {e["client"]: e["with_others"] for e in events if e["event"] == "basis_agreed"}
    (named,) = [e for e in events if e["event"] == "warning" and e["code"] == "view_at_chance"]
    assert min(agreements, key=agreements.get) == named["client"]
    assert sorted(agreements.values())[1] > 0.5
    for event in (named, *(e for e in events if e["event"] == "basis_agreed")):
        check_event(event)
