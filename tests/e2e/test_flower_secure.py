"""Secure aggregation across processes: a real SuperLink, real SuperNodes, tiny models; a member drops out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import deployment, federations
from safetensors.torch import load_file

from h2tune.events import read_events

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
pytest.importorskip("cryptography", reason="pip install 'h2tune[secure]'")
pytest.importorskip("Crypto", reason="pip install 'h2tune[secure]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIENTS = (("films", "llama", 4), ("news", "bert", 8), ("feed", "gpt2", 6))


def test_three_members_give_the_sums_of_one_machine_with_a_drop_out_after_masking(tmp_path):
    server = {"rounds": 2, "min_clients": 2, "weighting": "uniform", "secure_aggregation": True}
    content = federations.federation(
        tmp_path, CLIENTS, server=server, train={"local_steps": 2}, data={"train": 16, "test": 12}
    )
    file = federations.write(tmp_path, content)
    federations.h2tune("run", str(file), "--out", str(tmp_path / "embedded"))
    port = deployment.free_port()
    with deployment.deployment(deployment.lay_out(tmp_path, content, port), port) as parties:
        parties.superlink()
        for name, *_ in CLIENTS:
            patch = Path(deployment.PATCHED) / "silent.py" if name == "films" else None
            parties.supernode(name, patch=patch)
        parties.run()
        parties.until(parties.ended, 800)
        run = parties.home / "run"
        events = read_events(run / "events.jsonl")
        assert any(e["event"] == "run_finished" for e in events), parties.tails()
        steps = [e["secure_aggregation"] for e in events if e["event"] == "aggregated"]
        assert [s["survivors"] for s in steps] == [["feed", "films", "news"]] * 2
        assert [s["silent"] for s in steps] == [[], ["films"]]
        assert not [e for e in events if e["event"] in ("warning", "client_failed")]
        for number in (1, 2):  # sums of integers are the same to the bit, in any order
            one, two = (
                load_file(r / f"server/round-{number:04d}/state.safetensors")["shared"]
                for r in (tmp_path / "embedded", run)
            )
            assert one.norm() > 0.01 and torch.equal(one, two)
        times = [e["time"] for e in events if e["event"] == "aggregated"]
        print(f"seconds between aggregates: {times[1] - times[0]:.1f}")
