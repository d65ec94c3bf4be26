"""Phases and data order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from h2tune.training.schedule import draw, optimiser_steps, phase_of

numbers = st.integers(1, 20)


@given(numbers, st.integers(1, 6), st.integers(0, 5), st.integers(1, 6), st.integers(0, 99))
def test_a_round_goes_on_where_the_last_one_stopped(examples, batch, first, steps, seed):
    whole = draw(examples, batch, 0, first + steps, "joint", seed)
    assert draw(examples, batch, first, steps, "joint", seed) == whole[first * batch :]


@given(numbers, st.integers(1, 4), st.integers(0, 99))
def test_every_pass_sees_every_example_once(examples, passes, seed):
    order = draw(examples, examples, 0, passes, "joint", seed)
    for k in range(passes):
        assert sorted(order[k * examples : (k + 1) * examples]) == list(range(examples))


@given(numbers, st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_with_step_both_phases_see_the_same_batch(examples, batch, steps, seed):
    order = draw(examples, batch, 0, steps, "step", seed)
    once = draw(examples, batch, 0, steps, "interleave", seed)
    assert len(order) == batch * optimiser_steps(steps, "step")
    for k in range(steps):
        shared, specific = order[2 * k * batch :][:batch], order[(2 * k + 1) * batch :][:batch]
        assert shared == specific == once[k * batch :][:batch]
        assert (phase_of(2 * k, "step"), phase_of(2 * k + 1, "step")) == ("shared", "specific")


def test_seeds_and_passes_differ():
    assert draw(50, 50, 0, 1, "joint", 0) != draw(50, 50, 0, 1, "joint", 1)
    assert draw(50, 50, 0, 1, "joint", 0) != draw(50, 50, 1, 1, "joint", 0)
    assert phase_of(3, "joint") == "joint"


@given(st.integers(2, 9), st.integers(1, 6))
def test_interleave_gives_both_phases_the_same_however_many_steps_a_round_has(steps, rounds):
    phases = [
        phase_of(step, "interleave", number * steps)
        for number in range(1, rounds + 1)
        for step in range(steps)
    ]
    assert abs(phases.count("shared") - phases.count("specific")) <= 1
    assert all(
        {phase_of(s, "interleave", n * steps) for s in range(steps)} == {"shared", "specific"}
        for n in range(4)
    )


@given(st.integers(1, 9), st.integers(0, 99))
def test_step_starts_every_round_with_the_shared_phase(steps, before):
    assert [phase_of(step, "step", before) for step in range(2 * steps)] == ["shared", "specific"] * steps
