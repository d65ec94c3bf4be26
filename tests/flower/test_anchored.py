"""An anchored basis across machines, on a grid in memory: equal to one machine, and failures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import federations, tiny
from safetensors.torch import load_file

import h2tune
from h2tune.errors import H2TuneError
from h2tune.events import read_events

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from helpers.grids import EXPERIMENT, Grid, coordinator_of, identify, lay_out

from h2tune.federation.h2tune.basis import check_view, check_z
from h2tune.flower.coordinator.app import coordinate
from h2tune.flower.member.basis import MOST_TEXTS, give_view, take_frames, texts_of
from h2tune.flower.member.requests import BasisRequest
from h2tune.flower.messages import unpack
from h2tune.functional.frames import common_coordinates, view

CLIENTS = (("one", "llama", 4), ("two", "bert", 8))
TEXTS = [f"{a} {b} film" for a in tiny.WORDS[15:25] for b in tiny.WORDS[25:31]]


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    identify(monkeypatch)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = tmp_path_factory.mktemp("content")
    (folder / "public.txt").write_text("\n".join(TEXTS))
    return federations.federation(
        folder,
        CLIENTS,
        basis={
            "kind": "anchored",
            "consensus": False,
            "texts": [str(folder / "public.txt")],
            "count": len(TEXTS),
        },
        experimental={"start": "labels"},
        train={"local_steps": 2},
        data={"train": 8, "test": 4},
    )


@pytest.fixture
def parties(content, tmp_path):
    return lay_out(content, tmp_path)


@pytest.fixture
def coordinator(parties):
    return coordinator_of(parties, deadline=60.0, patience=3.0, gather=5.0)


def shared(run, number=2):
    return load_file(run / f"server/round-{number:04d}/state.safetensors")["shared"]


def events_of(run, kind):
    return [e for e in read_events(run / "events.jsonl") if e["event"] == kind]


def test_members_across_machines_learn_what_one_machine_does(content, parties, coordinator, tmp_path):
    h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    grid = Grid(parties, names=("one", "two"))
    run = coordinate(grid, coordinator)
    assert shared(run).norm() > 0.001 and torch.equal(shared(run), shared(tmp_path / "run"))
    one, many = (
        [{k: v for k, v in e.items() if k != "time"} for e in events_of(r, "basis_agreed")]
        for r in (tmp_path / "run", run)
    )
    assert one == many and [e["client"] for e in one] == ["one", "two"]
    kinds = [kind for _, kind, _ in grid.seen]
    assert kinds.count("query.view") == kinds.count("query.frames") == 2 and kinds.count("train") == 4
    # a restarted coordinator requests no view again; members have their frames
    again = Grid(parties, names=("one", "two"))
    more = coordinator.model_copy(update={"server": coordinator.server.model_copy(update={"rounds": 3})})
    coordinate(again, more)
    assert "query.view" not in {kind for _, kind, _ in again.seen}


def test_each_member_has_its_own_g_as_on_one_machine(content, parties, coordinator, tmp_path):
    own = content | {"experimental": content["experimental"] | {"increments": "relevance"}}
    h2tune.run(federations.write(tmp_path, own), out=tmp_path / "run")
    switches = coordinator.experimental.model_copy(update={"increments": "relevance"})
    changed = coordinator.model_copy(update={"experimental": switches})
    run = coordinate(Grid(parties, names=("one", "two")), changed)
    here, there = (load_file(r / "server/round-0002/state.safetensors") for r in (tmp_path / "run", run))
    assert here.keys() == there.keys() == {"shared", "shared.one", "shared.two"}
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert not torch.equal(there["shared.one"], there["shared.two"])


def test_a_member_without_a_view_gets_frames_before_its_first_round(parties, coordinator):
    grid = Grid(
        parties, names=("one", "two"), lost=lambda name, kind, _: (name, kind) == ("two", "query.view")
    )
    run = coordinate(grid, coordinator)
    agreed = events_of(run, "basis_agreed")
    assert [(e["client"], e["bytes_up"] > 0) for e in agreed] == [("one", True), ("two", False)]
    trained = [e["client"] for e in events_of(run, "client_trained")]
    assert sorted(trained) == ["one", "one", "two", "two"]


def test_without_frames_a_member_does_not_train(parties, coordinator):
    grid = Grid(
        parties, names=("one", "two"), lost=lambda name, kind, _: (name, kind) == ("two", "query.frames")
    )
    run = coordinate(grid, coordinator)
    failed = events_of(run, "client_failed")
    assert {e["client"] for e in failed} == {"two"} and "has no frames yet" in failed[0]["reason"]


def test_a_view_that_no_honest_member_can_send_is_refused(parties, coordinator, monkeypatch, caplog):
    from h2tune.flower.member import basis

    honest = basis.get_view

    def hostile(client, *rest):
        view = honest(client, *rest).clone()
        view[:, 0] *= 1e14 if client.name == "two" else 1.0
        return view

    monkeypatch.setattr(basis, "get_view", hostile)
    run = coordinate(Grid(parties, names=("one", "two")), coordinator)
    assert [(e["client"], e["bytes_up"] > 0) for e in events_of(run, "basis_agreed")] == [
        ("one", True),
        ("two", False),
    ]


def test_coordinates_that_no_honest_server_can_send_are_refused(parties, coordinator):
    file, request = (
        parties / "members" / "one" / "member.toml",
        BasisRequest(coordinator.settings, EXPERIMENT, "one", TEXTS),
    )
    z = torch.randn(
        len(TEXTS), int(coordinator.server.shared_rank), generator=torch.Generator().manual_seed(0)
    )
    with pytest.raises(H2TuneError, match="honest ones have 1"):
        take_frames(file, request, {"z": 100 * z})


@pytest.mark.parametrize("size", [3, 40, 200])
def test_honest_views_and_coordinates_pass(size):
    readings = 50 * torch.randn(120, size, generator=torch.Generator().manual_seed(size)).cumsum(1)
    sent = view(readings, 128)
    check_view(sent)
    check_z(common_coordinates([sent, sent.flip(0)], 16))


def test_no_view_at_all_is_an_error_before_training(parties, coordinator):
    grid = Grid(parties, names=("one", "two"), lost=lambda name, kind, _: kind == "query.view")
    with pytest.raises(H2TuneError, match="0 members sent a view of the public texts"):
        coordinate(grid, coordinator)
    assert not [m for _, kind, m in grid.seen if kind == "train"]


def test_messages_of_the_basis_have_no_path_and_are_validated(parties, coordinator):
    file, settings = parties / "members" / "one" / "member.toml", coordinator.settings
    assert settings.basis.texts == () and "public.txt" not in settings.model_dump_json()
    request = BasisRequest(settings, EXPERIMENT, "one", TEXTS)
    with pytest.raises(H2TuneError, match="the message is for 'two'"):
        give_view(file, replace(request, client="two"))
    with pytest.raises(H2TuneError, match="not those of the settings' basis"):
        give_view(file, replace(request, texts=TEXTS[:-1]))
    for texts in (None, ["text"] * 7, ["text"] * (MOST_TEXTS + 1), [1] * 8, ["long" * 2**20] * 8):
        with pytest.raises(H2TuneError, match="texts"):
            texts_of({"texts": texts})
    size = settings.server.shared_rank
    for z in (torch.zeros(len(TEXTS), size + 1), torch.full((len(TEXTS), size), torch.nan)):
        with pytest.raises(H2TuneError):
            take_frames(file, request, {"z": z})
    drawn = torch.randn(len(TEXTS), size, generator=torch.Generator().manual_seed(0))
    z = drawn / drawn.square().mean(0).sqrt()
    take_frames(file, request, {"z": z})
    take_frames(file, request, {"z": z})
    with pytest.raises(H2TuneError, match="belong to other coordinates"):
        take_frames(file, request, {"z": -z})


def test_a_view_depends_on_no_example(parties, coordinator):
    """A view is computed from public texts and the base model alone: other data, the same view."""
    grid = Grid(parties, names=("one", "two"))
    coordinate(grid, coordinator)
    views = {
        name: unpack(m.content)[1].tensors["view"] for name, kind, m in grid.seen if kind == "query.view"
    }
    file = parties / "members" / "one" / "member.toml"
    text = file.read_text()
    data = federations.write_rows(parties / "members" / "one" / "other.jsonl", seed=9)
    old = next(line for line in text.splitlines() if line.startswith("file = "))
    file.write_text(text.replace(old, f'file = "{data}"'))
    request = BasisRequest(coordinator.settings, "1" * 32, "one", TEXTS)
    assert torch.equal(give_view(file, request).tensors["view"], views["one"])
