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

NOISE = {"noise": "server", "clip": 1.0, "multiplier": 1.0}


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
    "noise": (2.0, {"privacy": NOISE}, r"privacy.multiplier 1 is less than 2"),
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
    with pytest.raises(H2TuneError, match="no noise is added"):
        join(file, coordinator.settings)


def test_settings_that_were_agreed_on_are_taken_and_any_change_of_them_is_refused(
    parties, coordinator, tmp_path
):
    file = with_policy(parties, tmp_path, settings=[policy.checksum(coordinator.settings)])
    assert join(file, coordinator.settings)
    with pytest.raises(H2TuneError, match=r"policy\.settings"):
        join(file, changed(coordinator.settings, train={"local_steps": 2}))


def test_epsilon_adds_up_over_runs_and_a_run_of_its_own_counts_once(parties, coordinator, tmp_path):
    settings = changed(coordinator.settings, privacy=NOISE, server={"rounds": 2})
    whole = policy.epsilon_of(settings, 2)
    file = with_policy(parties, tmp_path, epsilon=1.5 * whole)
    strategy = join(file, settings).strategy
    down = strategy.download(strategy.start(), "one", 0)
    request = RoundRequest(settings, EXPERIMENT, "one", 0, down.digest, {})
    take_part(file, request)
    take_part(file, request)  # the same round once more
    assert ledger.spent_elsewhere(tmp_path / "private", "1" * 32) == policy.epsilon_of(settings, 1)
    with pytest.raises(H2TuneError, match="over all runs"):
        take_part(file, replace(request, experiment="1" * 32))


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
