"""A registered member that answers for another one: a real SuperLink with TLS and keys, behind nginx."""

from __future__ import annotations

import shutil

import pytest
from helpers import deployment, federations

from h2tune.events import read_events

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIENTS = (("films", "llama", 4), ("news", "bert", 8))
UNSIGNED, OLD = "an answer is signed with another key", "an answer does not have the number of its message"


def test_forged_replayed_and_cross_named_answers_through_the_proxy_are_refused(tmp_path):
    """Flower takes the forged answers: one reaches the coordinator in each round, before the member's own."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    server = {"rounds": 3, "min_clients": 2}
    data = {"train": 16, "test": 12}
    content = federations.federation(tmp_path, CLIENTS, server=server, train={"local_steps": 2}, data=data)
    file = federations.write(tmp_path, content)
    federations.h2tune("run", str(file), "--out", str(tmp_path / "run"))
    port, public = deployment.free_port(), deployment.free_port()
    folder = deployment.lay_out(tmp_path, content, port, secure=True, public=public)
    with deployment.deployment(folder, port, secure=True, public=public) as parties:
        parties.superlink()
        parties.proxy()
        for name, *_ in CLIENTS:
            parties.register(name)
            parties.supernode(name, patch=deployment.PATCHED / "forging.py")
        parties.run()
        parties.until(parties.ended, 800)
        assert parties.log("news").count("forged: round") == 3, parties.tails()
        events = read_events(parties.home / "run" / "events.jsonl")
        again = [e for e in events if e["event"] == "warning"]
        assert [(e["client"], e["round"], e["code"], e["message"]) for e in again] == [
            ("films", number, "sent_again", f"{problem}; it was asked again")
            for number, problem in enumerate((UNSIGNED, OLD, OLD))
        ], parties.tails()
        for problem in (UNSIGNED, OLD):
            assert f"'films': {problem}; it is left out, and the message sent again" in parties.run_log()
        assert [e["clients"] for e in events if e["event"] == "aggregated"] == [["films", "news"]] * 3
        deployment.assert_equal(tmp_path / "run", parties.home / "run")
