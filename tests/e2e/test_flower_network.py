"""A federation over a network with 50 ms of delay and 1 % of loss; one member is disconnected for a round."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from helpers import deployment, federations, network

from h2tune.events import read_events

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIENTS = (("films", "llama", 4), ("news", "bert", 8), ("feed", "gpt2", 6))
ALL, REST = ["feed", "films", "news"], ["feed", "news"]
DELAY, LOSS = 0.05, 0.01
"""Seconds of delay and fraction of lost frames, each way."""


@pytest.fixture
def net():
    with contextlib.ExitStack() as stack:
        try:
            members = [name for name, *_ in CLIENTS]
            made = stack.enter_context(network.network(members, delay=DELAY, loss=LOSS))
        except network.Unavailable as error:
            pytest.skip(f"no network of namespaces can be made here: {error}")
        yield made


def test_three_machines_finish_over_a_slow_and_lossy_network_with_a_disconnection(net, tmp_path):
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    server = {"rounds": 3, "min_clients": 2}
    data = {"train": 16, "test": 12}
    content = federations.federation(tmp_path, CLIENTS, server=server, train={"local_steps": 2}, data=data)
    options = {"secure": True, "public": 9443}
    folder = deployment.lay_out(tmp_path, content, 9091, host=network.HUB, patience=90.0, **options)
    log = folder / "coordinator" / "run" / "events.jsonl"

    def events(kind: str):
        return [e for e in read_events(log) if e["event"] == kind] if log.exists() else []

    with deployment.deployment(folder, 9091, kind=network.spread(net), **options) as parties:
        parties.superlink()
        parties.proxy()
        for name, *_ in CLIENTS:
            parties.register(name)
            parties.supernode(name)
        parties.run()
        parties.until(lambda: "ROUND 1]" in parties.log("films") or parties.ended(), 400)
        net.cut("films")
        parties.until(lambda: events("client_failed") or parties.ended(), 400)
        net.cut("films", down=False)
        parties.until(parties.ended, 400)
        assert all(wire.dropped for wire in net.wires)
        took_part = [e["clients"] for e in events("aggregated")]
        assert took_part == [ALL, REST, ALL], parties.tails()
        (failed,) = events("client_failed")
        assert (failed["client"], failed["round"]) == ("films", 1)
        assert "Flower's code 5" in failed["reason"] or "not connected" in failed["reason"]
