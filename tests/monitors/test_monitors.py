"""What watches a run: the numbers that trackers get, resume, and monitors that cannot work."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from helpers import federations
from helpers.steps import Steps

import h2tune
from h2tune.config import load
from h2tune.errors import H2TuneError
from h2tune.monitors import trackers
from h2tune.monitors.load import monitors_of
from h2tune.monitors.metrics import Metrics, Tracker
from h2tune.training.arguments import check_arguments


class Kept(Tracker):
    """Keeps what it is called with."""

    def __init__(self):
        super().__init__()
        self.points, self.calls = [], []

    def open(self, folder, settings):
        self.calls.append(("open", folder.name, settings["name"]))

    def write(self, step, numbers):
        self.points += [(name, step, value) for name, value in numbers.items()]

    def on_turn(self, stage, round_number, client):
        self.calls.append(("turn", stage, round_number, client))

    def on_step(self, client, step, phase, loss):
        self.calls.append(("step", client, step))

    def on_end(self, finished):
        self.calls.append(("end", finished))

    def value(self, name):
        return {step: value for n, step, value in self.points if n == name}


@pytest.fixture
def content(tmp_path):
    return federations.federation(tmp_path, train={"local_steps": 2})


def test_a_run_is_one_series_of_rounds_for_each_client_and_the_federation(tmp_path, content):
    content["experimental"] = {"alone": True}
    kept = Kept()
    run = h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", monitors=[kept])
    scores = {
        (event["client"], event["stage"], event["round"] + 1): event["accuracy"]
        for event in run.events
        if event["event"] == "evaluated"
    }
    assert kept.value("clients/one/accuracy") == {
        0: scores["one", "before", 0], 1: scores["one", "trained", 1], 2: scores["one", "trained", 2],
    }  # fmt: skip
    assert kept.value("alone/one/accuracy") == {n: scores["one", "alone", n] for n in (1, 2)}
    for n in (1, 2):
        mean = (scores["one", "trained", n] + scores["two", "trained", n]) / 2
        assert kept.value("federation/accuracy")[n] == pytest.approx(mean)
    trained = [e for e in run.events if e["event"] == "client_trained" and e["stage"] == "trained"]
    assert kept.value("federation/bytes_up")[2] == sum(event["bytes_up"] for event in trained)
    assert not [name for name, *_ in kept.points if name.startswith("alone/") and "bytes" in name]
    assert kept.calls[0] == ("open", "run", "tiny") and kept.calls[-1] == ("end", True)
    assert kept.calls[1:4] == [("turn", "trained", 0, "one"), ("step", "one", 1), ("step", "one", 2)]


def test_what_was_sent_before_the_first_round_counts(tmp_path):
    content = federations.on_anchored_basis(tmp_path, rounds=1)
    kept = Kept()
    run = h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", monitors=[kept])
    sent = [event["bytes_up"] for event in run.events if event.get("client") == "one" and "bytes_up" in event]
    assert len(sent) == 2 and kept.value("clients/one/bytes_up") == {0: sent[0], 1: sum(sent)}


def test_a_monitor_sees_how_far_the_public_texts_are_read(tmp_path):
    reads = []

    class Reads(Kept):
        def on_reading(self, client, done, total):
            reads.append((client, done, total))

    content = federations.on_anchored_basis(tmp_path, rounds=1)
    h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", monitors=[Reads()])
    count = content["basis"]["count"]
    first = reads[: 1 + reads.index(("one", count, count))]
    assert first[0] == ("one", 0, count) and first == sorted(first) and len(first) > 2
    assert {client for client, done, _ in reads if done == count} == {"one", "two"}


def test_a_resumed_run_goes_on_with_its_sums(tmp_path, content):
    content["server"]["rounds"] = 1
    h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    content["server"]["rounds"] = 2
    content["monitors"] = []
    kept = Kept()
    run = h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", resume=True, monitors=[kept])
    trained = [e["bytes_up"] for e in run.events if e["event"] == "client_trained"]
    assert kept.value("federation/bytes_up") == {2: sum(trained)} and len(trained) == 4


def test_a_run_that_fails_ends_for_its_monitors_too(tmp_path, content):
    class Stops(Kept):
        def on_step(self, client, step, phase, loss):
            raise KeyboardInterrupt

    kept = Stops()
    with pytest.raises(KeyboardInterrupt):
        h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", monitors=[kept])
    assert kept.calls[-1] == ("end", False)


def test_a_monitor_of_ones_own_is_named_in_the_file(tmp_path, content, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_monitor.py").write_text(
        "import pathlib, h2tune\n"
        "class Pager(h2tune.Monitor):\n"
        "    def on_event(self, event):\n"
        "        if event['event'] == 'run_finished':\n"
        f"            pathlib.Path({str(tmp_path / 'page')!r}).write_text('done')\n"
        "def not_one(): ...\n"
    )
    content["monitors"] = ["own_monitor:Pager"]
    h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    assert (tmp_path / "page").read_text() == "done"
    with pytest.raises(H2TuneError, match="'own_monitor:not_one' is no monitor"):
        monitors_of([f"{tmp_path}/own_monitor.py:not_one"])
    sys.modules.pop("own_monitor")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_library_is_said_before_anything_is_read(tmp_path, content, name, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    content["monitors"] = [name]
    content["client"][0]["model"] = "./no-such-model"  # would be said later
    with pytest.raises(
        H2TuneError, match=rf"monitors = ..{name}..: .*not installed. pip install 'h2tune.{name}.'"
    ):
        h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_monitor_is_refused_by_name(tmp_path, content):
    content["monitors"] = ["tensorbord"]
    with pytest.raises(H2TuneError, match="did you mean 'tensorboard'"):
        load(federations.write(tmp_path, content))


def test_report_to_is_refused_with_the_key_that_works():
    with pytest.raises(H2TuneError, match=r"'report_to' is refused: .*set monitors"):
        check_arguments({"report_to": "tensorboard"}, "constant")


class FakeRun:
    def __init__(self):
        self.logged, self.metrics, self.ended = [], [], None

    def define_metric(self, name, step_metric=None):
        self.metrics.append((name, step_metric))

    def log(self, numbers):
        self.logged.append(numbers)

    def finish(self, exit_code):
        self.ended = exit_code


@pytest.fixture
def wandb(monkeypatch):
    """A package wandb that keeps its runs and what they were opened with."""
    module = ModuleType("wandb")
    module.opened = []
    module.Error = type("Error", (Exception,), {})

    def init(**options):
        run = FakeRun()
        module.opened.append((options, run))
        return run

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(trackers, "find_spec", lambda package: SimpleNamespace(name=package))
    return module


def test_a_resumed_run_is_the_same_run_at_weights_and_biases(tmp_path, content, wandb):
    content |= {"monitors": ["wandb"], "server": {"rounds": 1}}
    h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    content["server"] = {"rounds": 2}
    h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", resume=True)
    (first, one), (second, two) = wandb.opened
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert first["config"]["server"]["rounds"] == 1 and first["dir"] == str(tmp_path / "run")
    assert one.metrics == [("round", None), ("*", "round")] and one.ended == 0
    assert {entry["round"] for entry in one.logged} == {0, 1} and {e["round"] for e in two.logged} == {2}


def test_what_weights_and_biases_refuses_is_an_error_with_a_remedy(tmp_path, content, wandb, monkeypatch):
    def init(**options):
        raise wandb.Error("no API key")

    monkeypatch.setattr(wandb, "init", init)
    content["monitors"] = ["wandb"]
    with pytest.raises(H2TuneError, match=r"no API key.*WANDB_MODE=offline"):
        h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")


def test_tensorboard_reads_what_was_written(tmp_path, content):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    content["monitors"] = ["tensorboard"]
    run = h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    read = EventAccumulator(str(Path(run.folder) / "tensorboard"))
    read.Reload()
    assert [point.step for point in read.Scalars("clients/one/accuracy")] == [0, 1, 2]
    assert [point.step for point in read.Scalars("federation/change")] == [1, 2]


def test_metrics_leave_out_what_a_member_keeps_to_itself():
    event = {"event": "client_trained", "client": "one", "round": 0, "stage": "trained"}
    step, numbers = Metrics().of(event | {"bytes_up": 3, "bytes_down": 4})
    assert step == 1 and numbers == {"clients/one/bytes_up": 3, "clients/one/bytes_down": 4}


TWINS = (("one", "llama", 4), ("two", "llama", 4), ("three", "llama", 4))


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("clients", "server"),
    [
        (TWINS[:2], {"strategy": "h2tune"}),
        (TWINS[:2], {"strategy": "fedit"}),
        (TWINS, {"secure_aggregation": True, "min_clients": 2}),
        (TWINS, {"participation": 0.5, "min_clients": 1, "rounds": 3}),
    ],
    ids=["h2tune", "fedit", "sums", "a share"],
)
def test_the_steps_of_a_run_are_known_before_the_first(tmp_path, clients, server, alone):
    content = federations.federation(
        tmp_path, clients, train={"local_steps": 2}, experimental={"alone": alone}
    )
    content["server"] |= server
    steps = Steps()
    h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", monitors=[steps])
    assert steps.totals == [(steps.done, 0)]


def test_a_client_without_labels_takes_no_step(tmp_path):
    content = federations.federation(tmp_path, server={"strategy": "local", "rounds": 2})
    content["client"][0]["train"] = 0
    steps = Steps()
    h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", monitors=[steps])
    assert steps.totals == [(steps.done, 0)]


@pytest.mark.parametrize("alone", [True, False])
def test_the_steps_of_a_resumed_run_are_those_that_are_left(tmp_path, content, alone):
    content["experimental"] = {"alone": alone}
    file = federations.write(tmp_path, content)
    h2tune.run(file, overrides=["server.rounds=1"], out=tmp_path / "run")
    steps = Steps()
    h2tune.run(file, overrides=["server.rounds=3"], out=tmp_path / "run", resume=True, monitors=[steps])
    assert steps.totals == [(steps.done, 0)] and steps.done
