"""Secure aggregation through the real command line: the plain result, drop-outs, and what the server sees."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from helpers import federations, processes
from safetensors.torch import load_file

import h2tune
from h2tune.config import load
from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.federation import local_engine
from h2tune.federation.messages import digest, manifest
from h2tune.runs.build import check_secure

pytest.importorskip("cryptography", reason="pip install 'h2tune[secure]'")
pytest.importorskip("Crypto", reason="pip install 'h2tune[secure]'")

from h2tune.federation.secagg import local, masking, server
from h2tune.federation.secagg.client import SecAggClient

CLIENTS = (("one", "llama", 4), ("two", "bert", 8), ("three", "llama", 2))
SECURE = "server.secure_aggregation=true"


@pytest.fixture(scope="module")
def file():
    """Return a federation file at the same path in every session: seeds derive from the models' paths.

    The second round amplifies the quantisation step, how much depends on the draw; the bounds below are for this one.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    folder = Path(tempfile.gettempdir()) / f"h2tune-test-secure-{os.getuid()}-{worker}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    server = {"rounds": 2, "min_clients": 2, "weighting": "uniform"}
    yield federations.write(folder, federations.federation(folder, CLIENTS, server=server))
    shutil.rmtree(folder, ignore_errors=True)


def run(file, out, *arguments, before=None):
    """Run the command line in a new process, which `before` may patch; return its events."""
    process = processes.start(
        ("run", str(file), "--out", str(out), *arguments), out.parent / out.name, before
    )
    process.join()
    assert process.exitcode == 0, (out.parent / f"{out.name}.err").read_text()
    return read_events(out / "events.jsonl")


def shared(run, number):
    return load_file(run / f"server/round-{number:04d}/state.safetensors")["shared"]


def scores(events):
    return {(e["client"], e["round"], e["stage"]): e["accuracy"] for e in events if e["event"] == "evaluated"}


@pytest.fixture(scope="module")
def plain(file, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "run"
    return out, run(file, out, "--strict")


@pytest.fixture(scope="module")
def secure(file, tmp_path_factory):
    out = tmp_path_factory.mktemp("masked") / "run"
    return out, run(file, out, "--strict", "--set", SECURE)


def losing(name, stage):
    """Make a client fail: before it masks its values, or after that and before it reveals shares."""
    if stage == "training":
        train = local_engine.ClientRound.run

        def fail(work, base, tokenizer):
            if work.client.name == name:
                raise H2TuneError("lost in training")
            return train(work, base, tokenizer)

        local_engine.ClientRound.run = fail
    else:
        reveal = SecAggClient.reveal

        def silent(client, survivors):
            if client.name == name:
                raise H2TuneError("lost after masking")
            return reveal(client, survivors)

        SecAggClient.reveal = silent


def test_the_result_is_the_plain_one_to_the_quantisation_step(plain, secure):
    one, two = shared(plain[0], 1), shared(secure[0], 1)
    assert one.norm() > 0.1
    # float32's own rounding of the plain sums, and the step over the least coverage that counts
    torch.testing.assert_close(one, two, rtol=2e-6, atol=3 * masking.step(3) / 1e-8)
    torch.testing.assert_close(shared(plain[0], 2), shared(secure[0], 2), rtol=1e-4, atol=1e-5)
    assert scores(plain[1]) == scores(secure[1])
    facts = [e["secure_aggregation"] for e in secure[1] if e["event"] == "aggregated"]
    assert [f["survivors"] for f in facts] == [["one", "three", "two"]] * 2
    assert facts[0]["threshold"] == 2 and not facts[0]["dropped"] and not facts[0]["silent"]
    assert facts[0]["bytes_up_of_keys_and_shares"] == 2 * 32 + 2 * 92 + 3 * 32 + 2 * 104
    page = (secure[0] / "report.html").read_text()
    assert "what it learned under masks" in page and "the relation P (relation)" not in page


def test_masks_leave_nothing_behind_so_that_two_runs_are_equal_to_the_bit(file, secure, tmp_path):
    again = run(file, tmp_path / "again", "--set", SECURE)
    for number in (1, 2):
        assert torch.equal(shared(secure[0], number), shared(tmp_path / "again", number))
    sent = [
        [t["sha256"] for e in events if e["event"] == "client_trained" for t in e["sent"]]
        for events in (secure[1], again)
    ]
    assert not set(sent[0]) & set(sent[1]) and len(set(sent[0] + sent[1])) == 12  # new masks in every round


@pytest.mark.parametrize("stage", ["training", "unmasking"])
def test_a_client_that_drops_out_does_not_change_the_sum_of_the_others(file, plain, tmp_path, stage):
    lose = functools.partial(losing, "three", stage)
    events = run(file, tmp_path / "run", "--set", SECURE, before=lose)
    facts = [e["secure_aggregation"] for e in events if e["event"] == "aggregated"]
    if stage == "unmasking":  # its values were in the sum already
        assert [f["silent"] for f in facts] == [["three"]] * 2
        wanted = plain[0]
    else:
        assert [f["dropped"] for f in facts] == [["three"]] * 2
        assert [e["client"] for e in events if e["event"] == "client_failed"] == ["three"] * 2
        run(file, tmp_path / "without", before=lose)
        wanted = tmp_path / "without"
    torch.testing.assert_close(shared(wanted, 1), shared(tmp_path / "run", 1), rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(shared(wanted, 2), shared(tmp_path / "run", 2), rtol=1e-4, atol=1e-5)


def test_fewer_than_the_threshold_end_the_run_which_can_be_resumed(file, secure, tmp_path, monkeypatch):
    reveal = SecAggClient.reveal

    def silent(client, survivors):
        if client.name != "two" and b"|1|" in client.session:
            raise H2TuneError("lost after masking")
        return reveal(client, survivors)

    monkeypatch.setattr(SecAggClient, "reveal", silent)
    with pytest.raises(H2TuneError, match=r"1 clients revealed, 2 are needed.*'one'.*'three'"):
        h2tune.run(file, out=tmp_path / "run", overrides=[SECURE])
    monkeypatch.setattr(SecAggClient, "reveal", reveal)
    h2tune.run(file, out=tmp_path / "run", overrides=[SECURE], resume=True)
    for number in (1, 2):
        assert torch.equal(shared(secure[0], number), shared(tmp_path / "run", number))


def test_nothing_that_reaches_the_server_or_its_files_has_a_clients_own_values(file, tmp_path, monkeypatch):
    received = []  # every message to the server's side of the protocol
    for name in ("advertised", "shared", "masked", "revealed"):
        original = getattr(server.SecAggServer, name)

        def spy(side, client, content, original=original):
            received.append((client, repr(content) if not hasattr(content, "tobytes") else content.tobytes()))
            return original(side, client, content)

        monkeypatch.setattr(server.SecAggServer, name, spy)
    plain, replies, mask_reply = {}, [], local.mask_reply

    def record(reply, client, boxes):
        plain[reply.client, reply.update.round] = reply.update.tensors["quantised"].clone()
        replies.append(mask_reply(reply, client, boxes))
        return replies[-1]

    monkeypatch.setattr(local, "mask_reply", record)
    h2tune.run(file, out=tmp_path / "run", overrides=[SECURE])
    assert len(plain) == 6 and len(received) == 6 * 4 and len(replies) == 6
    values = {key: t.numpy() for key, t in plain.items()}
    texts = [content.encode() if isinstance(content, str) else content for _, content in received]
    texts += [reply.update.tensors["masked"].numpy().tobytes() for reply in replies]
    texts += [repr(reply.events).encode() for reply in replies]
    stored = [p for p in (tmp_path / "run").rglob("*") if p.is_file() and "clients" not in p.parts]
    assert {"events.jsonl", "state.safetensors", "report.html"} <= {p.name for p in stored}
    texts += [path.read_bytes() for path in stored]
    for key, own in values.items():
        learned = own[0][own[0] != 0]
        assert learned.size > 50
        needles = [learned[i : i + 1].tobytes() for i in range(0, learned.size, 7)]  # any 8 bytes of N
        needles.append(digest({"quantised": plain[key]}).encode())
        needles.append(manifest({"masked": plain[key]})[0]["sha256"].encode())
        (reply,) = [r for r in replies if (r.client, r.update.round) == key]
        masked = reply.update.tensors["masked"].numpy()
        assert (masked != own).mean() > 0.999
        assert (masked == 0).mean() < 0.01  # uncovered entries are hidden too
        for text in texts:
            assert not any(needle in text for needle in needles)
    for reply in replies:
        assert not any({"relation", "coverage"} & event.keys() for event in reply.events)
    assert not any(
        {"relation", "coverage"} & e.keys() for e in read_events(tmp_path / "run" / "events.jsonl")
    )


def test_training_alone_and_noise_of_members_work_with_it(file, tmp_path):
    more = ["experimental.alone=true", "server.min_clients=3"]
    noise = ["privacy.noise=member", "privacy.clip=0.5", "privacy.multiplier=2.0"]
    run = h2tune.run(file, out=tmp_path / "run", strict=True, overrides=[SECURE, *more, *noise])
    aggregated = [e for e in run.events if e["event"] == "aggregated"]
    assert all(
        ("secure_aggregation" in e) == (e["stage"] == "trained") == ("privacy" in e) for e in aggregated
    )
    assert all(row["alone"] is not None for row in run.table)
    # noise of σ · clip on the sum of three: √(3 shares of 2 · 0.5 / √2) in every entry, over coverage of three at most
    start = shared(tmp_path / "run", 1)
    covered = start[start != 0]
    assert 0.2 < float(covered.std()) < 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "fedit"}, 'needs strategy = "h2tune"'),
        ({"aggregation": "median", "min_clients": 3}, "must see each update"),
        ({"weighting": "examples"}, 'secure aggregation needs "uniform"'),
        ({"min_clients": 1}, "needs 2 updates in every round, but min_clients is 1"),
        ({"participation": 0.5, "min_clients": 1}, "needs 2 updates in every round, but min_clients is 1"),
    ],
)
def test_settings_that_do_not_work_with_it_are_refused_early(tmp_path, changes, message):
    server = {"min_clients": 2, "weighting": "uniform", "secure_aggregation": True, **changes}
    content = federations.federation(tmp_path, CLIENTS, server=server)
    with pytest.raises(H2TuneError) as error:
        load(federations.write(tmp_path, content))
    assert message in str(error.value)


def test_two_clients_and_noise_of_the_server_are_refused(tmp_path):
    server = {"min_clients": 2, "weighting": "uniform", "secure_aggregation": True}
    file = federations.write(tmp_path, federations.federation(tmp_path, CLIENTS[:2], server=server))
    with pytest.raises(H2TuneError, match="it is for 3 to 100 clients, but there are 2"):
        load(file)
    file = federations.write(tmp_path, federations.federation(tmp_path, CLIENTS, server=server))
    with pytest.raises(H2TuneError, match="must see each update to clip it"):
        load(file, ["privacy.noise=server"])


def test_missing_packages_are_an_error_before_training(file, monkeypatch):
    monkeypatch.setattr("h2tune.runs.build.find_spec", lambda name: None)
    with pytest.raises(H2TuneError, match=r"pip install 'h2tune\[secure\]'"):
        check_secure(load(file, [SECURE]).server)
