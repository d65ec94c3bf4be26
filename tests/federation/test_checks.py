"""The checks of a round detect deliberate mutations of the code, in the first round."""

from __future__ import annotations

import pytest
import torch
from helpers import federations

from h2tune.config import parse
from h2tune.errors import H2TuneError
from h2tune.federation.checks import check_shared, far_updates
from h2tune.federation.h2tune.adapted_model import H2TuneAdaptedModel
from h2tune.runs.run import run


def go(tmp_path, **options):
    content = federations.federation(tmp_path, server={"rounds": 1})
    return run(parse(content, "test", tmp_path), out=tmp_path / "run", **options)


def codes(finished) -> set[str]:
    return {e["code"] for e in finished.events if e["event"] == "warning" and e["round"] == 0}


def test_a_working_run_has_no_warnings(tmp_path):
    assert codes(go(tmp_path, strict=True)) == set()


def drop_the_download(monkeypatch):
    def receive(self, download):
        self.received = self.shared.middles()

    monkeypatch.setattr(H2TuneAdaptedModel, "receive", receive)


def overwrite_the_middle_before_every_step(monkeypatch):
    from h2tune.adapter.layer import H2TuneLayer

    monkeypatch.setattr(H2TuneLayer, "middle", lambda self, name: self.h2tune_received[name].clone())


def send_what_was_there_before_training(monkeypatch):
    original, send = H2TuneAdaptedModel.receive, H2TuneAdaptedModel.send

    def receive(self, download):
        original(self, download)
        self.stale = send(self)

    monkeypatch.setattr(H2TuneAdaptedModel, "receive", receive)
    monkeypatch.setattr(H2TuneAdaptedModel, "send", lambda self: self.stale)


def rename_one_client_s_tensors(monkeypatch):
    original = H2TuneAdaptedModel.send

    def send(self):
        sent = original(self)
        if self.shared.depth == 2 and "mlp.gate" not in self.shared.roles:  # the encoder alone
            sent = {name.replace("delta.attn", "delta.attention"): tensor for name, tensor in sent.items()}
        return sent

    monkeypatch.setattr(H2TuneAdaptedModel, "send", send)


@pytest.mark.parametrize(
    ("mutation", "code"),
    [
        (drop_the_download, "download_not_loaded"),
        (overwrite_the_middle_before_every_step, "no_gradient"),
        (overwrite_the_middle_before_every_step, "nothing_learned"),
        (send_what_was_there_before_training, "upload_differs"),
        (rename_one_client_s_tensors, "update_refused"),
    ],
)
def test_each_mutation_is_reported_in_the_first_round(tmp_path, monkeypatch, mutation, code):
    mutation(monkeypatch)
    assert code in codes(go(tmp_path))


@pytest.mark.parametrize(
    "mutation",
    [
        drop_the_download,
        overwrite_the_middle_before_every_step,
        send_what_was_there_before_training,
        rename_one_client_s_tensors,
    ],
)
def test_with_strict_each_mutation_is_an_error(tmp_path, monkeypatch, mutation):
    mutation(monkeypatch)
    with pytest.raises(H2TuneError, match="--strict"):
        go(tmp_path, strict=True)


def test_with_strict_a_client_that_fails_is_an_error(tmp_path, monkeypatch):
    def fail(self, download):
        raise ValueError("no such layer")

    monkeypatch.setattr(H2TuneAdaptedModel, "receive", fail)
    with pytest.raises(H2TuneError, match=r"client 'one', round 0: .*no such layer.*--strict"):
        go(tmp_path, strict=True)


def test_a_client_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    original = H2TuneAdaptedModel.receive

    def receive(self, download):
        original(self, download)
        if "mlp.gate" in self.shared.roles:  # the decoder alone
            with torch.no_grad():
                next(iter(self.phases()["specific"].values())).fill_(float("nan"))

    monkeypatch.setattr(H2TuneAdaptedModel, "receive", receive)
    finished = go(tmp_path)
    failed = [e for e in finished.events if e["event"] == "client_failed"]
    assert [e["client"] for e in failed] == ["one"] and "loss became nan" in failed[0]["reason"]
    assert [e["clients"] for e in finished.events if e["event"] == "aggregated"] == [["two"]]
    assert (finished.folder / "report.html").exists()


def test_below_min_clients_the_run_stops_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(H2TuneAdaptedModel, "receive", lambda self, download: 1 / 0)
    with pytest.raises(H2TuneError, match=r"0 of 2 updates arrived, min_clients is 1.*start the run again"):
        go(tmp_path)


def enlarged(monkeypatch, factor: float) -> None:
    """Let the bert client send its increments, enlarged."""
    send = H2TuneAdaptedModel.send

    def hostile(self):
        tensors = send(self)
        deltas = {name: factor * t for name, t in tensors.items() if name.startswith("delta")}
        return tensors | (deltas if self.model.base_model.model.config.model_type == "bert" else {})

    monkeypatch.setattr(H2TuneAdaptedModel, "send", hostile)


def of_three(tmp_path, **server):
    clients = (("one", "llama", 4), ("two", "bert", 4), ("three", "llama", 4))
    content = federations.federation(tmp_path, clients, server={"rounds": 1} | server)
    return parse(content, "test", tmp_path)


def test_an_update_far_larger_than_the_others_is_a_warning_that_names_the_client(tmp_path, monkeypatch):
    enlarged(monkeypatch, 1e4)
    finished = run(of_three(tmp_path), out=tmp_path / "run")
    far = [e for e in finished.events if e["event"] == "warning" and e["code"] == "update_far"]
    assert [e["client"] for e in far] == ["two"] and "the median of the others" in far[0]["message"]
    assert [e["clients"] for e in finished.events if e["event"] == "aggregated"] == [["one", "three", "two"]]


def test_a_far_update_is_left_out_by_choice_and_the_round_is_that_of_the_others(tmp_path, monkeypatch):
    plain = run(of_three(tmp_path, rounds=2, refuse_far=True), out=tmp_path / "plain")
    assert not [e for e in plain.events if e["event"] in ("warning", "client_failed")]
    enlarged(monkeypatch, 1e9)
    finished = run(of_three(tmp_path, rounds=2, refuse_far=True), out=tmp_path / "run")
    steps = [e for e in finished.events if e["event"] == "aggregated"]
    assert [step["clients"] for step in steps] == [["one", "three"]] * 2
    assert all(step["norm"] < 10 for step in steps)
    failed = [e for e in finished.events if e["event"] == "client_failed"]
    assert [(e["client"], e["round"]) for e in failed] == [("two", 0), ("two", 1)]
    assert "its update has a norm of" in failed[0]["reason"] and "server.refuse_far" in failed[0]["reason"]
    again = run(of_three(tmp_path, rounds=2, refuse_far=True), out=tmp_path / "run", resume=True)
    assert [e["sha256"] for e in again.events if e["event"] == "aggregated"] == [s["sha256"] for s in steps]


def test_a_round_without_its_far_update_needs_min_clients_all_the_same(tmp_path, monkeypatch):
    enlarged(monkeypatch, 1e9)
    with pytest.raises(H2TuneError, match="2 of 3 updates arrived, min_clients is 3"):
        run(of_three(tmp_path, min_clients=3, refuse_far=True), out=tmp_path / "run")


def test_values_that_no_honest_round_reaches_are_never_committed_and_the_client_is_named(
    tmp_path, monkeypatch
):
    enlarged(monkeypatch, 1e9)
    with pytest.raises(H2TuneError, match=r"has values up to .*; the largest update is that of client 'two'"):
        run(of_three(tmp_path), out=tmp_path / "run")
    assert not list((tmp_path / "run/server").glob("round-*"))


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"server": {"strategy": "fedit", "refuse_far": True}}, 'not for strategy "fedit"'),
        ({"server": {"secure_aggregation": True, "refuse_far": True}}, "hides the norm"),
        ({"privacy": {"noise": "member"}, "server": {"refuse_far": True}}, "hides the norm"),
    ],
)
def test_to_refuse_far_updates_their_norms_must_be_known(tmp_path, section, reason):
    clients = (("one", "llama", 4), ("two", "bert", 4), ("three", "llama", 4))
    with pytest.raises(H2TuneError, match=f"server.refuse_far: .*{reason}"):
        parse(federations.federation(tmp_path, clients, **section), "test", tmp_path)


def test_two_others_are_needed_to_call_an_update_far():
    assert not far_updates({"a": 1.0, "b": 1e9}, 0)
    assert not far_updates({"a": None, "b": 1e9, "c": 1.0}, 0)
    assert not far_updates({"a": 0.0, "b": 5.0, "c": 0.0}, 0)
    assert [w["client"] for w in far_updates({"a": 1.0, "b": 1e9, "c": 2.0}, 0)] == ["b"]


def test_what_is_not_finite_is_never_committed():
    sizes = {"a": 1.0, "b": 1e9, "c": None}
    good = {"shared": torch.full((3,), 9e3), "count": torch.full((2,), 10**6), "none": torch.zeros(0)}
    check_shared(good, {}, 1, largest=1e4)
    check_shared({"shared": torch.tensor([1e30])}, sizes, 1, largest=torch.inf)  # a method without a bound
    for value, problem in ((torch.inf, "no longer finite"), (-2e4, "values up to 2e\\+04")):
        with pytest.raises(H2TuneError, match=f"{problem}.*client 'b', of norm 1e\\+09"):
            check_shared({"shared": torch.tensor([1.0, value])}, sizes, 1, largest=1e4)
