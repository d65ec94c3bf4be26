"""Each client's own G: equation (10), in numbers and in the strategy."""

from __future__ import annotations

import pytest
import torch
from helpers import federations
from helpers.strategies import aggregate, h2tune
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from h2tune.config import parse
from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.strategy import NAME, H2Tune
from h2tune.federation.messages import Enrolment, Update
from h2tune.functional.relevance import personal_steps, relevance
from h2tune.runs.run import run

SHAPE = (2, 3, 4, 4)


def drawn(seed: int, clients: int = 4) -> torch.Tensor:
    return torch.randn(clients, *SHAPE, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**31), st.floats(0.01, 100))
def test_only_directions_count_and_never_the_order_of_clients(seed, factor):
    learned = drawn(seed)
    weights = relevance(learned)
    assert torch.equal(weights.diagonal(), torch.ones(4)) and float(weights.min()) >= 0
    assert torch.allclose(weights, weights.T)
    longer = learned.clone()
    longer[1] *= factor
    assert torch.allclose(relevance(longer), weights, atol=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    steps, other = personal_steps(learned, weights), personal_steps(learned[order], relevance(learned[order]))
    assert torch.allclose(steps[order], other, atol=1e-5)


def test_a_worked_example():
    learned = torch.zeros(5, 1, 1, 2, 2)
    learned[0, ..., 0, 0] = 2.0
    learned[1, ..., 0, 0], learned[1, ..., 0, 1] = 3.0, 4.0  # cosine 3/5 with the first
    learned[2, ..., 1, 1] = 1.0  # at right angles to all
    learned[3, ..., 0, 0] = -1.0  # against the first two
    weights = relevance(learned)  # the last has learned nothing
    expected = torch.eye(5)
    expected[0, 1] = expected[1, 0] = 0.6
    assert torch.allclose(weights, expected)
    steps = personal_steps(learned, weights).flatten(1)
    assert torch.allclose(steps[0], torch.tensor([2 + 0.6 * 3, 0.6 * 4, 0, 0]))
    assert torch.allclose(steps[1], torch.tensor([3 + 0.6 * 2, 4.0, 0, 0]))
    assert torch.equal(steps[2:], learned[2:].flatten(1))


def strategy(rate: float = 1.0) -> H2Tune:
    enrolments = [Enrolment(f"c{i}", "model", 1, 2, 10, {"attn.q": (0,)}, {}) for i in range(3)]
    return h2tune(
        enrolments, shared_rank=2, slots=1, mask="leading", alignment="depth", rate=rate,
        increments="relevance",
    )  # fmt: skip


def update(client: int, values: list[float], round_number: int = 0) -> Update:
    return Update(f"c{client}", round_number, 10, {"delta.attn.q": torch.tensor(values).view(1, 2, 2)})


def held(method: H2Tune, state: dict[str, torch.Tensor], client: int) -> list[float]:
    sent = method.download(state, f"c{client}", 1).tensors
    return next(iter(sent.values())).flatten().tolist()


def test_each_client_gets_its_own_g_and_one_that_comes_later_the_mean():
    method = strategy()
    first = [update(0, [1.0, 0, 0, 0]), update(1, [1.0, 0, 0, 1.0])]
    state, facts = aggregate(method, method.start(), first)
    assert facts["relevance"] == {"clients": ["c0", "c1"], "weights": [[1.0, 0.7071], [0.7071, 1.0]]}
    cosine = 0.5**0.5
    assert held(method, state, 0) == pytest.approx([1 + cosine, 0, 0, cosine])
    assert held(method, state, 1) == pytest.approx([1 + cosine, 0, 0, 1])
    assert held(method, state, 2) == pytest.approx([1, 0, 0, 0.5])  # equation (5)
    again, _ = aggregate(method, state, [update(2, [0, 8.0, 0, 0], 1)])
    assert held(method, again, 2) == pytest.approx([1, 8, 0, 0.5])
    assert held(method, again, 0) == held(method, state, 0)  # it sat the round out


def test_a_late_update_counts_less_and_the_rate_is_applied():
    method = strategy(rate=0.5)
    updates = [update(0, [4.0, 0, 0, 0], 1), update(1, [0, 4.0, 0, 0], 0)]
    state, _ = aggregate(method, method.start(), updates)
    assert held(method, state, 0) == pytest.approx([2, 0, 0, 0])
    assert held(method, state, 1) == pytest.approx([0, 2 * 0.5**0.5, 0, 0])


@pytest.mark.parametrize(("slots", "depth"), [(12, 6), (30, 12), (2, 1), (3, 3)])
def test_to_a_client_by_itself_it_is_the_mean_whatever_its_depth(slots, depth):
    enrolments = [Enrolment("one", "model", depth, 2, 10, {"attn.q": tuple(range(depth))}, {})]
    sent = Update("one", 0, 10, {"delta.attn.q": drawn(3, depth)[:, 0, 0, :2, :2].contiguous()})
    received = []
    for increments in ("mean", "relevance"):
        method = h2tune(
            enrolments, shared_rank=2, slots=slots, mask="leading", alignment="depth", increments=increments
        )  # fmt: skip
        state, _ = aggregate(method, method.start(), [sent])
        received.append(next(iter(method.download(state, "one", 1).tensors.values())))
    assert torch.allclose(*received, atol=1e-6)


def test_through_a_run_a_resumed_one_is_the_same_and_each_client_holds_its_own(tmp_path, monkeypatch):
    content = federations.on_anchored_basis(tmp_path, rounds=2)
    content["experimental"]["increments"] = "relevance"
    whole = run(parse(content, "test", tmp_path), out=tmp_path / "whole")
    aggregate = H2Tune.aggregate
    with monkeypatch.context() as patch:
        patch.setattr(H2Tune, "aggregate", lambda m, s, u: aggregate(m, s, u) if not u[0].round else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(parse(content, "test", tmp_path), out=tmp_path / "part")
    resumed = run(parse(content, "test", tmp_path), out=tmp_path / "part", resume=True)
    ends = [[e["sha256"] for e in r.events if e["event"] == "aggregated"] for r in (whole, resumed)]
    assert ends[0] == ends[1]
    state = load_file(sorted((tmp_path / "whole" / "server").glob("**/state.safetensors"))[-1])
    assert {NAME, f"{NAME}.one", f"{NAME}.two"} == state.keys()
    assert not torch.equal(state[f"{NAME}.one"], state[f"{NAME}.two"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server": {"secure_aggregation": True, "min_clients": 3}}, "receives only their sum"),
        ({"server": {"aggregation": "median", "min_clients": 3}}, "computes one step for all"),
        ({"privacy": {"noise": "server", "clip": 1.0, "multiplier": 1.0}}, "depend on each client's update"),
    ],
)
def test_what_compares_updates_does_not_go_with_what_hides_them(changes, words):
    clients = [{"name": f"c{i}", "model": "/model", "task": "tweets"} for i in range(3)]
    content = {"name": "apart", "client": clients, **changes}
    content["experimental"] = {"increments": "relevance"}
    with pytest.raises(H2TuneError, match=words):
        parse(content, "here")
