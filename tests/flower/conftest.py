"""A kit for two members, the coordinator's file and the members' cards; needs flwr."""

from __future__ import annotations

import pytest
from helpers import federations


@pytest.fixture(scope="module")
def parties(tmp_path_factory):
    """The folder of a kit for two members, written once per module."""
    folder = tmp_path_factory.mktemp("kit")
    from helpers.grids import lay_out

    content = federations.federation(folder, train={"local_steps": 1}, data={"train": 8, "test": 4})
    return lay_out(content, folder)


@pytest.fixture
def coordinator(parties):
    from helpers.grids import coordinator_of

    return coordinator_of(parties, deadline=2.0, patience=0.05, gather=1.0)


@pytest.fixture
def cards(parties, coordinator):
    from h2tune.flower.member.join import join

    return {
        name: join(parties / "members" / name / "member.toml", coordinator.settings).card
        for name in ("one", "two")
    }


@pytest.fixture
def identity(monkeypatch):
    """The identifiers that Flower sets in an app's process before it makes messages."""
    from helpers.grids import identify

    identify(monkeypatch)
