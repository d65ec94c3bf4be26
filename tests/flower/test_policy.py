"""A member's own policy: every limit refuses what is beyond it on the member's machine, in enrolment and in rounds."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import pytest
import tomli_w

from h2tune.errors import H2TuneError

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from helpers.grids import EXPERIMENT

from h2tune.flower import policy
from h2tune.flower.files import Settings
from h2tune.flower.member import handlers, ledger
from h2tune.flower.member.join import join
from h2tune.flower.member.requests import RoundRequest
from h2tune.flower.member.round import take_part

NOISE = {"noise": "member", "clip": 1.0, "multiplier": 1.0}


def changed(settings: Settings, **sections) -> Settings:
    content = json.loads(settings.model_dump_json(exclude_none=True))
    for section, changes in sections.items():
        content[section] = content[section] | changes
    if sections.get("privacy"):
        content["experimental"] |= {"mask": "leading", "alignment": "depth"}
        content["server"] |= {"weighting": "uniform"}
    return Settings.model_validate(content)


def with_policy(parties, tmp_path, **table):
    """Return the file of member "one", with a policy and a folder of its own."""
    path = parties / "members" / "one" / "member.toml"
    content = tomllib.loads(path.read_text())
    content |= {"policy": table, "folder": str(tmp_path / "private")}
    file = path.with_name(f"{tmp_path.name}.toml")
    file.write_text(tomli_w.dumps(content))
    return file


BEYOND = {
    "settings": (["0" * 64], {}, "the settings have the checksum"),
    "rounds": (1, {}, "2 rounds are more than 1"),
    "noise": (2.0, {"privacy": NOISE}, r"its own share of the noise, 1, is less than 2"),
    "clip": (0.5, {"privacy": NOISE}, r"privacy.clip 1 is more than 0.5"),
    "epsilon": (0.5, {"privacy": NOISE}, "ε would be .* over all runs, more than 0.5"),
    "metrics": (False, {}, 'privacy.metrics is not "private"'),
    "readings": (False, {"basis": {"kind": "anchored"}}, "how their models read the public texts"),
    "directions": (False, {"basis": {"kind": "anchored", "consensus": True}}, "send label directions"),
}
WITHIN = {
    "rounds": (2, {}),
    "noise": (1.0, {"privacy": NOISE}),
    "clip": (1.0, {"privacy": NOISE}),
    "epsilon": (50.0, {"privacy": NOISE}),
    "metrics": (False, {"privacy": {"metrics": "private"}}),
    "readings": (False, {}),
    "directions": (False, {}),
}


@pytest.mark.parametrize("key", BEYOND)
def test_a_limit_refuses_what_is_beyond_it(parties, coordinator, tmp_path, key):
    limit, sections, message = BEYOND[key]
    file = with_policy(parties, tmp_path, **{key: limit})
    settings = changed(coordinator.settings, **{"server": {"rounds": 2}, **sections})
    with pytest.raises(H2TuneError, match=f"policy refuses it: .*{message}.*policy.{key}"):
        join(file, settings)
    request = RoundRequest(settings, EXPERIMENT, "one", 0, "", {})
    with pytest.raises(H2TuneError, match=rf"policy\.{key}"):
        take_part(file, request)
    assert not (tmp_path / "private").exists()


@pytest.mark.parametrize("key", WITHIN)
def test_what_is_within_a_limit_is_taken(parties, coordinator, tmp_path, key):
    limit, sections = WITHIN[key]
    file = with_policy(parties, tmp_path, **{key: limit})
    assert join(file, changed(coordinator.settings, **{"server": {"rounds": 2}, **sections}))


@pytest.mark.parametrize("key", ["noise", "clip", "epsilon"])
def test_without_noise_limits_on_privacy_refuse(parties, coordinator, tmp_path, key):
    file = with_policy(parties, tmp_path, **{key: 1.0})
    with pytest.raises(H2TuneError, match="members do not add noise themselves"):
        join(file, coordinator.settings)


def test_settings_that_were_agreed_on_are_taken_and_any_change_of_them_is_refused(
    parties, coordinator, tmp_path
):
    file = with_policy(parties, tmp_path, settings=[policy.checksum(coordinator.settings)])
    assert join(file, coordinator.settings)
    with pytest.raises(H2TuneError, match=r"policy\.settings"):
        join(file, changed(coordinator.settings, train={"local_steps": 2}))


@pytest.mark.parametrize("key", ["noise", "clip", "epsilon"])
def test_noise_by_the_server_is_the_coordinator_s_promise_alone(parties, coordinator, tmp_path, key):
    file = with_policy(parties, tmp_path, **{key: 1.0})
    settings = changed(coordinator.settings, privacy=NOISE | {"noise": "server", "multiplier": 9.0})
    with pytest.raises(H2TuneError, match=f"members do not add noise themselves.*policy.{key}"):
        join(file, settings)


def test_a_large_delta_makes_no_epsilon_small(parties, coordinator, tmp_path):
    file = with_policy(parties, tmp_path, epsilon=8.0)
    with pytest.raises(H2TuneError, match=r"privacy.delta 0.999 is more than 1e-05 \(policy.delta\)"):
        join(file, changed(coordinator.settings, privacy=NOISE | {"delta": 0.999}))


def test_noise_is_counted_as_the_member_s_own_share(parties, coordinator, tmp_path):
    file = with_policy(parties, tmp_path, noise=1.0)
    sections = {"server": {"min_clients": 101}, "experimental": {"noise_shares": 100}}
    with pytest.raises(H2TuneError, match=r"its own share of the noise, 0.1, is less than 1"):
        join(file, changed(coordinator.settings, privacy=NOISE, **sections))


def noisy_run(parties, coordinator, tmp_path, runs: float):
    """Return settings with noise, the member's file with ε for so many runs of them, and the request of round 0."""
    settings = changed(coordinator.settings, privacy=NOISE, server={"rounds": 2})
    file = with_policy(parties, tmp_path, epsilon=runs * policy.epsilon_of(settings, 2))
    strategy = join(file, settings).strategy
    down = strategy.download(strategy.start(), "one", 0)
    return settings, file, RoundRequest(settings, EXPERIMENT, "one", 0, down.digest, {})


def test_epsilon_adds_up_over_runs_and_a_run_of_its_own_counts_once(parties, coordinator, tmp_path):
    settings, file, request = noisy_run(parties, coordinator, tmp_path, 1.5)
    take_part(file, request)
    take_part(file, request)  # the same round once more
    assert ledger.spent(tmp_path / "private") == policy.epsilon_of(settings, 1)
    assert join(file, settings)  # it may be the same run, started again
    with pytest.raises(H2TuneError, match="over all runs"):
        take_part(file, replace(request, experiment="1" * 32))


def test_a_run_keeps_its_settings_but_for_more_rounds(parties, coordinator, tmp_path):
    """Else each message could be just within a limit, and all together beyond it."""
    settings, file, request = noisy_run(parties, coordinator, tmp_path, 9.0)
    take_part(file, request)
    take_part(file, replace(request, settings=changed(settings, server={"rounds": 3})))
    stronger = changed(settings, privacy=NOISE | {"multiplier": 2.0})
    with pytest.raises(H2TuneError, match="a run keeps its settings"):
        take_part(file, replace(request, settings=stronger, round=1))


def test_a_view_is_never_given_where_a_public_encoder_makes_the_coordinates(parties, coordinator, tmp_path):
    file = with_policy(parties, tmp_path, readings=False)
    basis = {"kind": "anchored", "encoder": "pypi:all-minilm-l6-v2"}
    settings = changed(coordinator.settings, basis=basis)
    head = {
        "settings": settings.model_dump_json(),
        "experiment": EXPERIMENT,
        "client": "one",
        "texts": ["a b"] * 20,
    }
    answer, tensors = handlers.respond("view", file, json.dumps(head), None)
    assert tensors is None and "no member's view is needed" in json.loads(answer)["reason"]


@pytest.mark.parametrize("kind", ["keys", "shares", "reveal"])
def test_messages_of_secure_aggregation_are_within_the_policy_too(parties, coordinator, tmp_path, kind):
    file = with_policy(parties, tmp_path, rounds=1)
    secure = {"rounds": 5, "secure_aggregation": True, "min_clients": 2, "weighting": "uniform"}
    settings = changed(coordinator.settings, server=secure)
    head = {"settings": settings.model_dump_json(), "experiment": EXPERIMENT, "client": "one"}
    answer, _ = handlers.respond(kind, file, json.dumps(head), None)
    assert "policy.rounds" in json.loads(answer)["reason"]


def test_private_metrics_leave_the_majority_accuracy_off_the_card(parties, coordinator, tmp_path):
    file = with_policy(parties, tmp_path, metrics=False)
    card = join(file, changed(coordinator.settings, privacy={"metrics": "private"})).card
    assert card.majority_accuracy == 0 and card.labels
    file = with_policy(parties, tmp_path)
    assert join(file, coordinator.settings).card.majority_accuracy > 0


def test_a_ledger_that_was_altered_ends_the_run(parties, coordinator, tmp_path):
    settings = changed(coordinator.settings, privacy=NOISE)
    file = with_policy(parties, tmp_path, epsilon=100.0)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / ledger.FILE).write_text("{")
    with pytest.raises(H2TuneError, match="spent ε"):
        take_part(file, RoundRequest(settings, EXPERIMENT, "one", 0, "", {}))


def test_the_coordinator_is_given_the_reason(parties, coordinator, tmp_path):
    file = with_policy(parties, tmp_path, rounds=1)
    head = json.dumps({"settings": changed(coordinator.settings, server={"rounds": 5}).model_dump_json()})
    answer, tensors = handlers.respond("enrol", file, head, None)
    assert "5 rounds are more than 1 (policy.rounds)" in json.loads(answer)["reason"] and tensors is None
