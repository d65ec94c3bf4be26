"""Robust aggregation in files and in the strategy: what is refused, what the events say."""

from __future__ import annotations

import pytest
import torch
from helpers.strategies import aggregate, h2tune

from h2tune.config import dump, parse
from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.strategy import NAME, H2Tune
from h2tune.federation.messages import Enrolment, Update
from h2tune.flower.files import CoordinatorFile, MemberFile, Settings
from h2tune.flower.load import validated
from h2tune.functional.aggregation import Sums
from h2tune.functional.factors import Dense


def content(count: int, **server):
    clients = [{"name": f"c{i}", "model": "/model", "task": "tweets"} for i in range(count)]
    return {"name": "robust", "server": server, "client": clients}


@pytest.mark.parametrize(
    ("count", "server", "words"),
    [
        (2, {"aggregation": "median"}, "hostile = 1 needs 3 clients or more, but there are 2"),
        (4, {"aggregation": "krum", "min_clients": 4}, "needs 5 clients or more"),
        (9, {"aggregation": "median", "hostile": 3, "min_clients": 6}, "needs 7 updates in every round"),
        (9, {"aggregation": "krum", "hostile": 3, "min_clients": 8}, "Set it to 9 or more, or leave it out"),
        (9, {"hostile": 3}, 'aggregation = "mean" tolerates no hostile'),
        (9, {"aggregation": "median", "strategy": "fedit"}, 'not for strategy "fedit"'),
    ],
)
def test_what_cannot_work_is_refused_before_the_start(count, server, words):
    with pytest.raises(H2TuneError, match=words):
        parse(content(count, **server), "here")


def test_a_sound_file_reads_back_to_itself():
    stated = content(7, aggregation="clip", hostile=3, min_clients=7) | {"experimental": {"clip_norm": 0.5}}
    federation = parse(stated, "here")
    assert parse(dump(federation), "again") == federation
    assert federation.server.assumed_hostile == 3
    assert parse(content(3, aggregation="median", min_clients=3), "here").server.assumed_hostile == 1


def test_a_coordinator_passes_the_rule_on_and_a_member_alone_accepts_it(tmp_path):
    server = {"aggregation": "krum", "hostile": 1, "min_clients": 5, "shared_rank": 8, "slots": 2}
    raw = {"name": "robust", "server": server, "folder": "run", "roles": ["attn.q"]}
    members = [{"name": f"c{i}"} for i in range(5)]
    found = validated(CoordinatorFile, {**raw, "member": members}, "file")
    assert found.federation.server.aggregation == found.settings.server.aggregation == "krum"
    with pytest.raises(H2TuneError, match="needs 5 updates in every round, but min_clients is 4"):
        validated(CoordinatorFile, {**raw, "server": {**server, "min_clients": 4}, "member": members}, "file")
    file = validated(
        MemberFile,
        {"federation": "robust", "folder": "mine", "client": content(1)["client"][0]},
        "member",
    )
    settings = Settings.model_validate_json(found.settings.model_dump_json())
    assert file.joined(settings, tmp_path).server.aggregation == "mean"


def strategy(aggregation: str, ranks=(2, 2, 2, 1), **more) -> H2Tune:
    enrolments = [
        Enrolment(f"c{i}", "model", 1, rank, 10 ** (6 * (i == 0)), {"attn.q": (0,)}, {})
        for i, rank in enumerate(ranks)
    ]
    return h2tune(
        enrolments,
        shared_rank=2,
        slots=1,
        mask="leading",
        alignment="depth",
        aggregation=aggregation,
        **more,
    )


def updates(method: H2Tune, values: list[float]) -> list[Update]:
    return [
        Update(e.name, 0, e.examples, {"delta.attn.q": torch.full((1, e.rank, e.rank), value)})
        for e, value in zip(method.enrolments.values(), values, strict=True)
    ]


def test_a_hostile_client_that_claims_a_million_examples_decides_nothing():
    values = [1e30, 1.0, 1.0, 1.0]
    method = strategy("median", hostile=1)
    after, facts = aggregate(method, method.start(), updates(method, values))
    assert after[NAME].flatten().tolist() == [1.0, 1.0, 1.0, 1.0]
    assert facts["left"] == 0.0
    plain = strategy("mean")
    assert float(aggregate(plain, plain.start(), updates(plain, values))[0][NAME].max()) > 1e29


def test_events_say_how_much_was_left_and_who_was_kept():
    method = strategy("trimmed_mean", ranks=(2, 2, 1, 1), hostile=1)
    after, facts = aggregate(method, method.start(), updates(method, [5.0, 1.0, 2.0, 3.0]))
    assert after[NAME].flatten().tolist() == [2.5, 0.0, 0.0, 0.0]  # two clients cover the rest: too few
    assert facts["left"] == facts["left_by_role"]["attn.q"] == 0.75
    krum = strategy("krum", ranks=(2,) * 5, hostile=1)
    _, facts = aggregate(krum, krum.start(), updates(krum, [-9.0, 1.0, 1.1, 0.9, 1.2]))
    assert facts["kept"] == ["c1", "c2", "c3", "c4"]
    krum = strategy("krum", ranks=(2,) * 3, hostile=0)
    _, facts = aggregate(krum, krum.start(), updates(krum, [1.0, 1.1, 0.9]))
    assert facts["kept"] == ["c0", "c1", "c2"]  # said where nobody is left out, too
    clip = strategy("clip", hostile=1)
    _, facts = aggregate(clip, clip.start(), updates(clip, [100.0, 1.0, 1.0, 1.0]))
    assert facts["clip_norm"] == 2.0 and facts["norms"]["c0"] == 200.0


def test_the_mean_is_what_it_was_to_the_bit():
    method = strategy("mean", ranks=(2, 2, 1, 2))
    draw = torch.Generator().manual_seed(0)
    state = {NAME: torch.randn(1, 1, 2, 2, generator=draw)}
    sent = updates(method, torch.randn(4, generator=draw).tolist())
    sums = Sums(state[NAME].shape)
    for update in sent:
        dense = Dense.of(method.decode(update), ["attn.q"], 2)
        sums.add(dense.learned, dense.coverage, float(update.examples), [0])
    after, facts = aggregate(method, state, list(reversed(sent)))
    assert torch.equal(after[NAME], sums.step(state[NAME]))
    assert facts.keys() == {"change", "change_by_role", "norm"}
