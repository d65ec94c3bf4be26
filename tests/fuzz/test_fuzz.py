"""The short form of `make fuzz`, with hypothesis: some seconds per target, and regressions of earlier findings."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
import torch

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = {"update": 600, "message": 180, "settings": 150, "enrolment": 150}


class Drawn:
    """Choices drawn by hypothesis."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def integer(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def binary(self, most: int) -> bytes:
        return self.data.draw(st.binary(max_size=most))


def fuzz(name: str, examples: int) -> Counter[bool]:
    seen: Counter[bool] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data):
        seen[TARGETS[name](Drawn(data))] += 1

    logging.disable(logging.WARNING)
    try:
        run()
    finally:
        logging.disable(logging.NOTSET)
    return seen


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_untrusted_is_refused_or_as_good_as_valid(name):
    seen = fuzz(name, EXAMPLES.get(name, 100))
    assert seen[True] and seen[False], seen  # both happen, or nothing was tried


@pytest.mark.parametrize(
    ("name", "place", "broken"),
    [
        ("update", "h2tune.federation.messages.check_tensors", lambda *_: None),
        (
            "update",
            "h2tune.federation.h2tune.codec.wire.unpack_masks",
            lambda packed, *_: torch.zeros(len(packed), 4).long(),
        ),
    ],
)
def test_a_gate_that_accepts_everything_is_detected(monkeypatch, name, place, broken):
    monkeypatch.setattr(place, broken)
    with pytest.raises((AssertionError, KeyError, RuntimeError)):
        fuzz(name, 300)
