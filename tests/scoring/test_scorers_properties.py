from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from h2tune.scoring.scorers import number, option, word

texts = st.text(max_size=60)
words = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "{}.", "${}", "{} km", ": {}", "{}.00"]), texts)
def test_number_is_read_in_every_dress(value: int, dress: str, before: str) -> None:
    output = f"{before.replace('Problem', '')}\nThe answer is {dress.format(f'{value:,}')}"
    assert number(output, str(value))
    assert not number(output, str(value + 1))


@given(st.decimals(-10_000, 10_000, places=3))
def test_trailing_zeros_do_not_matter(value: object) -> None:
    assert number(f"The answer is {value}00", str(value))


@given(
    st.sampled_from("ABCDE"),
    st.sampled_from("ABCDE"),
    st.sampled_from(["{}", "({})", "{})", " {}.", "({}) 5 km"]),
)
def test_option_is_right_only_for_its_letter(said: str, right: str, dress: str) -> None:
    assert option("The answer is " + dress.format(said), right) == (said == right)


@given(words, words, words)
def test_word_matches_whole_words_and_never_inside_another(wanted: str, left: str, right: str) -> None:
    assert word(f"{left}, {wanted.upper()}. {right}", wanted)
    glued = f"{left}{wanted}{right}"
    assert not word(glued, wanted)


@given(texts, texts)
def test_no_text_raises_and_scores_depend_on_the_text_only(output: str, answer: str) -> None:
    for scorer in (number, option, word):
        assert scorer(output, answer) is scorer(output, answer)
