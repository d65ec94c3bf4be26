"""The aggregation of every baseline, against small examples computed with NumPy or by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.strategies import aggregate

from h2tune import baselines
from h2tune.baselines.fed_sb import factors
from h2tune.errors import H2TuneError
from h2tune.federation.messages import Enrolment, Tensors, Update, digest, payload_bytes, spec_of

NAMES = tuple(baselines.MODULES)
D_IN, D_OUT = 5, 4


def enrolment(name: str, *, model: str = "m", rank: int = 2, examples: int = 1, depth: int = 1) -> Enrolment:
    blocks = tuple(range(depth))
    modules = {f"b{block}.q": (D_IN, D_OUT) for block in blocks}
    return Enrolment(name, model, depth, rank, examples, {"attn.q": blocks}, modules)


def build(name: str, *clients: Enrolment, alpha: float = 4.0, weighting: str = "examples") -> Any:
    return baselines.build(
        name, clients, shared_rank=8, alpha=alpha, dropout=0.0, weighting=weighting, seed=0
    )


def drawn(strategy: Any, client: str, seed: int) -> Tensors:
    draw = np.random.default_rng(seed)
    return {
        name: torch.tensor(draw.normal(size=shape), dtype=torch.float32)
        if dtype == "float32"
        else torch.tensor([strategy.enrolments[client].rank], dtype=torch.int32)
        for name, (shape, dtype) in strategy.upload_spec(client, 0).items()
    }


def update(strategy: Any, client: str, seed: int, round_number: int = 0) -> Update:
    return Update(client, round_number, strategy.enrolments[client].examples, drawn(strategy, client, seed))


def numpy(update: Update) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in update.tensors.items()}


@pytest.mark.parametrize("name", ["fedit", "ffa-lora", "fedsa-lora", "fed-sb"])
def test_averaging_methods_average_what_they_share(name: str) -> None:
    strategy = build(name, enrolment("a", examples=1), enrolment("b", examples=3))
    sent = [update(strategy, "b", 1), update(strategy, "a", 0)]
    following, facts = aggregate(strategy, strategy.start(), sent)
    b, a = map(numpy, sent)
    kinds = {"fedit": {"lora_A", "lora_B"}, "ffa-lora": {"lora_B"}, "fedsa-lora": {"lora_A"}}
    assert {n.rpartition(".")[2] for n in a} == kinds.get(name, {"middle"})
    assert following.keys() == strategy.start().keys()
    for key in a:
        np.testing.assert_allclose(following[f"a/{key}"], 0.25 * a[key] + 0.75 * b[key], rtol=1e-6)
    assert facts["groups"] == [["a", "b"]]
    change = sum(((following[k] - v) ** 2).sum() for k, v in strategy.start().items())
    assert facts["change"] == pytest.approx(float(change) ** 0.5, rel=1e-5)


def test_uniform_weights_and_missing_clients() -> None:
    clients = enrolment("a", examples=1), enrolment("b", examples=3), enrolment("c", examples=5)
    strategy = build("fedit", *clients, weighting="uniform")
    a, c = update(strategy, "a", 0), update(strategy, "c", 2)
    following, _ = aggregate(strategy, strategy.start(), [c, a])
    for key in a.tensors:
        expected = (numpy(a)[key] + numpy(c)[key]) / 2
        np.testing.assert_allclose(following[f"a/{key}"], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in (*baselines.UNSHARED, "flora", "flexlora")])
def test_two_equal_clients_give_what_each_sent(name: str) -> None:
    strategy = build(name, enrolment("a"), enrolment("b"))
    tensors = drawn(strategy, "a", 0)
    following, _ = aggregate(strategy, strategy.start(), [Update(c, 0, 1, tensors) for c in "ab"])
    back = strategy.download(following, "b", 1).tensors
    for key, tensor in back.items():
        torch.testing.assert_close(tensor, tensors[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_groups_alone_and_what_travels(name: str) -> None:
    clients = [enrolment("a"), enrolment("b"), enrolment("c", rank=1), enrolment("d", model="other")]
    strategy = build(name, *clients)
    by_rank, alone = name in ("fedit", "ffa-lora", "fedsa-lora", "fed-sb"), name in baselines.UNSHARED
    together = "ab" if by_rank else "abcd" if name == "co-lora" else "" if alone else "abc"
    assert [c for c in "abcd" if strategy.upload_spec(c, 0)] == list(together)
    state = strategy.start()
    for client in "abcd":
        note = strategy.note(client)
        assert note == "" if client in together or alone else "same as local" in note
        first = strategy.download(state, client, 0)
        assert first.tensors == {} and strategy.download_spec(client, 0) == {}
    updates = [update(strategy, client, i) for i, client in enumerate("abcd")]
    following, facts = aggregate(strategy, state, updates)
    assert facts["groups"] == ([list(together)] if together else [])
    assert following == {} if alone else facts["change"] > 0
    assert all(torch.equal(t, following[k]) for k, t in aggregate(strategy, state, updates[::-1])[0].items())
    for client in "abcd":
        later = strategy.download(following, client, 1)
        assert spec_of(later.tensors) == strategy.download_spec(client, 1)
        assert bool(later.tensors) == (client in together)
        if client not in together:
            assert later.digest == digest({})


def test_a_group_that_sent_nothing_stays_as_it_is() -> None:
    clients = [enrolment(n, model=m) for n, m in (("a", "m"), ("b", "m"), ("c", "n"), ("d", "n"))]
    for name in NAMES[1:-1]:
        strategy = build(name, *clients)
        state = strategy.start()
        following, _ = aggregate(strategy, state, [update(strategy, "a", 0), update(strategy, "b", 1)])
        untouched = {k: t for k, t in following.items() if k.startswith("c/")}
        assert untouched.keys() == {k for k in state if k.startswith("c/")}
        assert all(torch.equal(tensor, state[key]) for key, tensor in untouched.items())


def test_hetlora_by_hand() -> None:
    # α = 2: the scale of rank 1 is 2, of rank 2 it is 1. ‖ΔW_a‖ = 2 · 3 = 6, ‖ΔW_b‖ = 4: weights 0.6 and 0.4.
    strategy = build("hetlora", enrolment("a", rank=1, examples=9), enrolment("b", rank=2), alpha=2.0)
    unit_in, unit_out = np.eye(D_IN, dtype=np.float32), np.eye(D_OUT, dtype=np.float32)
    sent = {
        "a": (unit_in[:1], 3 * unit_out[:, :1]),
        "b": (unit_in[1:3], np.stack([0 * unit_out[0], 4 * unit_out[2]], axis=1)),
    }
    updates = [
        Update(c, 0, strategy.enrolments[c].examples,
               {"b0.q.lora_A": torch.tensor(a), "b0.q.lora_B": torch.tensor(b),
                "rank": torch.tensor([len(a)], dtype=torch.int32)})
        for c, (a, b) in sent.items()
    ]  # fmt: skip
    following, _ = aggregate(strategy, strategy.start(), updates)
    np.testing.assert_allclose(
        following["a/b0.q.lora_A"], [[0.6, 0.4, 0, 0, 0], [0, 0, 0.4, 0, 0]], rtol=1e-6
    )
    up = np.zeros((D_OUT, 2))
    up[0, 0], up[2, 1] = 0.6 * 2 * 3, 0.4 * 4
    np.testing.assert_allclose(following["a/b0.q.lora_B"], up, rtol=1e-6)
    poor = strategy.download(following, "a", 1).tensors  # truncated, and B divided by its own scale
    np.testing.assert_allclose(poor["b0.q.lora_A"], [[0.6, 0.4, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(poor["b0.q.lora_B"], up[:, :1] / 2, rtol=1e-6)
    # a client that pruned its second rank gets zeros there
    updates[1].tensors["rank"] = torch.tensor([1], dtype=torch.int32)
    pruned = strategy.download(aggregate(strategy, following, updates)[0], "b", 1).tensors
    assert not pruned["b0.q.lora_A"][1].any() and not pruned["b0.q.lora_B"][:, 1].any()
    assert pruned["b0.q.lora_A"][0].any() and pruned["b0.q.lora_B"][:, 0].any()


def _update_of(strategy: Any, client: str, tensors: Tensors, alpha: float = 4.0) -> np.ndarray:
    """ΔW of a client's A and B."""
    t = {k: v.double().numpy() for k, v in tensors.items()}
    return alpha / strategy.enrolments[client].rank * t["b0.q.lora_B"] @ t["b0.q.lora_A"]


@pytest.mark.parametrize(("ranks", "present"), [((1, 2, 3), "abc"), ((3, 3, 3), "ac"), ((1, 1, 2), "ab")])
def test_flexlora_gives_each_client_the_best_of_its_rank(ranks: tuple[int, ...], present: str) -> None:
    clients = [
        enrolment(n, rank=r, examples=i + 1) for i, (n, r) in enumerate(zip("abc", ranks, strict=True))
    ]
    strategy = build("flexlora", *clients)
    updates = [update(strategy, client, i) for i, client in enumerate("abc") if client in present]
    total = sum(u.examples for u in updates)
    mean = sum(u.examples / total * _update_of(strategy, u.client, u.tensors) for u in updates)
    following, _ = aggregate(strategy, strategy.start(), updates)
    left, singular, right = np.linalg.svd(mean)
    for client, rank in zip("abc", ranks, strict=True):
        best = left[:, :rank] * singular[:rank] @ right[:rank]
        got = strategy.download(following, client, 1).tensors
        np.testing.assert_allclose(_update_of(strategy, client, got), best, atol=1e-5)


def test_flora_is_exact_round_after_round_and_late_clients_catch_up() -> None:
    clients = [enrolment("a", rank=1, examples=1), enrolment("b", rank=3, examples=3), enrolment("c", rank=2)]
    strategy = build("flora", *clients)
    state, expected = strategy.start(), np.zeros((D_OUT, D_IN))
    held: Tensors = {}
    for number, present in enumerate(("ab", "ac", "b", "ab")):
        updates = [update(strategy, c, 10 * number + i, number) for i, c in enumerate(present)]
        total = sum(u.examples for u in updates)
        expected += sum(u.examples / total * _update_of(strategy, u.client, u.tensors) for u in updates)
        state, _ = aggregate(strategy, state, updates)
        assert state["a/b0.q.lora_A"].shape[0] == 6 * (number + 1)
        if number in (0, 3):  # c was there in the second round alone, holding what was stacked before it
            got = strategy.download(state, "c", number + 1)
            offset = int(got.tensors["offset"])
            assert offset == (0 if number == 0 else 6)
            down = torch.cat([held.get("A", torch.zeros(0, D_IN))[:offset], got.tensors["b0.q.lora_A"]])
            up = torch.cat([held.get("B", torch.zeros(D_OUT, 0))[:, :offset], got.tensors["b0.q.lora_B"]], 1)
            np.testing.assert_allclose(up.double() @ down.double(), expected, atol=1e-5)
            assert got.digest == digest({"b0.q.lora_A": down, "b0.q.lora_B": up})
            held = {"A": down, "B": up}
    last = strategy.download(state, "b", 4).tensors  # only the part of the last round, 6 ranks wide
    assert spec_of(last) == strategy.download_spec("b", 4)
    assert payload_bytes(spec_of(last)) == 4 * 6 * (D_IN + D_OUT) + 4


def test_co_lora_averages_each_entry_over_those_who_have_it() -> None:
    # depths 6 and 2 are cut into 2 parts; their last blocks are 2, 5 and 0, 1
    deep = enrolment("a", rank=1, depth=6, examples=1)
    strategy = build("co-lora", deep, enrolment("b", model="n", rank=2, depth=2, examples=3))
    assert set(strategy.upload_spec("a", 0)) == {
        f"attn.q.{p}.{k}" for p in (0, 1) for k in ("middle", "offset")
    }
    sent = {
        "a": {"attn.q.0.middle": [[8.0]], "attn.q.0.offset": [4.0]},
        "b": {"attn.q.0.middle": [[4.0, 1.0], [2.0, 3.0]], "attn.q.0.offset": [0.0, 5.0]},
    }
    updates = []
    for client, tensors in sent.items():
        full = {k: torch.zeros(shape) for k, (shape, _) in strategy.upload_spec(client, 0).items()}
        full |= {k: torch.tensor(v) for k, v in tensors.items()}
        updates.append(Update(client, 0, strategy.enrolments[client].examples, full))
    following, _ = aggregate(strategy, strategy.start(), updates)
    assert following["a/attn.q.0.middle"].tolist() == [[5.0, 1.0], [2.0, 3.0]]
    assert following["a/attn.q.0.offset"].tolist() == [1.0, 5.0]
    assert strategy.download(following, "a", 1).tensors["attn.q.0.middle"].tolist() == [[5.0]]
    alone, _ = aggregate(strategy, following, updates[:1])  # entries that no client sent are unchanged
    assert alone["a/attn.q.0.middle"].tolist() == [[8.0, 1.0], [2.0, 3.0]]


def test_fed_sb_factors_are_the_leading_singular_vectors() -> None:
    draw = np.random.default_rng(0)
    left, right = (np.linalg.qr(draw.normal(size=(n, n)))[0] for n in (12, 20))
    weight = left @ np.diag(2.0 ** -np.arange(12)) @ right[:12]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    down, up = factors(torch.tensor(weight, dtype=torch.float32), 3)
    assert torch.equal(before, torch.get_rng_state())
    assert down.shape == (3, 20) and up.shape == (12, 3)
    np.testing.assert_allclose(abs(down.numpy() @ right[:3].T), np.eye(3), atol=1e-4)
    np.testing.assert_allclose(abs(up.numpy().T @ left[:, :3]), np.eye(3), atol=1e-4)
    torch.manual_seed(6)
    again, _ = factors(torch.tensor(weight, dtype=torch.float32), 3)
    assert torch.equal(down, again)


def test_unknown_methods_are_named_with_the_nearest_known() -> None:
    with pytest.raises(H2TuneError, match="fedsa-lora"):
        build("fedsa_lora", enrolment("a"))
