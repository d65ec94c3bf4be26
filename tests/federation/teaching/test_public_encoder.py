"""Coordinates of a public encoder, on one machine and across machines."""

from __future__ import annotations

import pytest
import torch
from helpers import federations
from helpers.taught import THREE, alone_in_its_labels, content, lessons, shared, with_encoder
from safetensors.torch import load_file

import h2tune
from h2tune.config import load
from h2tune.errors import H2TuneError
from h2tune.federation import head_reading
from h2tune.federation.h2tune import model_reader
from h2tune.runs.inspect import inspect
from h2tune.training.readings import read_rows


def test_with_a_public_encoder_directions_alone_are_sent(tmp_path, monkeypatch):
    found = with_encoder(tmp_path, monkeypatch)
    file = federations.write(tmp_path, found)
    run = h2tune.run(file, out=tmp_path / "run", strict=True)
    once = [e for e in run.events if e["event"] in ("basis_agreed", "lesson_prepared")]
    assert {(e["event"], e["bytes_up"], e["bytes_down"]) for e in once} == {
        ("basis_agreed", 0, 0),
        ("lesson_prepared", 512, 512),
    }
    assert {tuple(client["basis_bytes"]) for client in inspect(load(file)).clients} == {(512, 512)}
    z = load_file(run.folder / "server/basis/basis.safetensors")["z"]
    found["client"] = found["client"][1:]  # who takes part does not change them
    other = h2tune.run(federations.write(tmp_path, found), out=tmp_path / "other")
    assert torch.equal(load_file(other.folder / "server/basis/basis.safetensors")["z"], z)


def test_strangers_in_a_federation_change_nothing_for_the_others(tmp_path, monkeypatch):
    found = with_encoder(tmp_path, monkeypatch)
    found["client"][2] = alone_in_its_labels(tmp_path)["client"][2]
    found["experimental"]["increments"] = "none"
    private = []
    for name, clients in (("with", found["client"]), ("without", found["client"][:2])):
        file = federations.write(tmp_path, {**found, "client": clients})
        run = h2tune.run(file, out=tmp_path / name, strict=True)
        private.append(load_file(run.folder / "clients/one/state/round-0001/private.safetensors"))
    one, other = private
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_with_a_public_encoder_a_model_reads_the_texts_once(tmp_path, monkeypatch):
    """The reading for frames has the final states of the exchange as well, and what a head reads that starts there."""
    read, heads = [], []

    def counted(*args, **options):
        read.append(len(options["modules"]))
        return read_rows(*args, **options)

    monkeypatch.setattr(model_reader, "SMALL", 0)
    monkeypatch.setattr(model_reader, "read_rows", counted)
    monkeypatch.setattr(head_reading, "SMALL", 0)
    monkeypatch.setattr(head_reading, "head_inputs", lambda *_, **__: heads.append(1))
    monkeypatch.setenv("H2TUNE_CACHE", str(tmp_path / "cache"))
    found = with_encoder(tmp_path, monkeypatch)
    h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run")
    assert len(read) == 3 and read[0] == 0 and all(read[1:])  # the encoder, and two models of three clients
    assert not heads and list((tmp_path / "cache/readings").glob("*-head.safetensors"))


def test_a_public_encoder_is_read_from_safetensors_only(tmp_path, monkeypatch):
    found = with_encoder(tmp_path, monkeypatch)
    weights = tmp_path / "public/encoder/model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(H2TuneError, match="public/encoder: cannot be loaded"):
        h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run")


def test_a_decoder_is_no_public_encoder(tmp_path):
    found = content(tmp_path)
    found["basis"]["encoder"] = found["client"][2]["model"]
    with pytest.raises(H2TuneError, match="is a decoder"):
        inspect(load(federations.write(tmp_path, found)))


@pytest.mark.parametrize(("encoder", "increments"), [(False, "mean"), (True, "mean"), (True, "none")])
def test_members_across_machines_have_the_lessons_of_one_machine(tmp_path, monkeypatch, encoder, increments):
    pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
    from helpers.grids import Grid, coordinator_of, identify, lay_out

    from h2tune.events import read_events
    from h2tune.flower.coordinator.app import coordinate

    identify(monkeypatch)
    make = with_encoder if encoder else lambda folder, _, **changes: content(folder, **changes)
    two = make(tmp_path, monkeypatch, clients=THREE[1:])
    two["experimental"]["increments"] = increments
    here = h2tune.run(federations.write(tmp_path, two), out=tmp_path / "run")
    parties = lay_out(two, tmp_path)
    grid = Grid(parties, names=("two", "three"))
    there = coordinate(grid, coordinator_of(parties, deadline=60.0, patience=3.0, gather=5.0))
    assert torch.equal(shared(there), shared(here.folder))
    events = [e for e in read_events(there / "events.jsonl") if e["event"] == "lesson_prepared"]
    assert federations.comparable(events) == federations.comparable(lessons(here))
    trained = [
        [(e["client"], e["round"], e["losses"]) for e in found if e["event"] == "client_trained"]
        for found in (here.events, read_events(there / "events.jsonl"))
    ]
    assert trained[0] == trained[1] and len(trained[0]) == 4
    kinds = [kind for _, kind, _ in grid.seen]
    assert ("query.view" in kinds) == (not encoder)
    assert kinds.count("query.knowledge") == kinds.count("query.lesson") == 2
    # what left a member: its directions, and nothing of its texts, labels' names or lesson
    sent = [m for _, kind, m in grid.seen if kind == "query.knowledge"]
    assert all(b"yes" not in repr(m.content).encode() for m in sent)
